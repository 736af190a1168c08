/**
 * An OpenID provider whose tokens say who a workload is: a CI system, a cloud. Trust belongs to the record, and a token of
 * it is good for nobody whom a registration does not name by its subject (T-6).
 */

import * as z from 'zod/mini'
import { Audience, ClusterName } from './cluster.ts'

/** `exp - iat` that a token may have unless the record says otherwise. CI systems make them for a job, which takes an hour. */
const DEFAULT_MAX_TOKEN_LIFETIME_SECONDS = 3600

/** The manifest's form of an OIDC attestor. Every field is described in docs/manifest.md. */
export const OidcAttestorManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('OIDCAttestor'),
  metadata: z.strictObject({ name: ClusterName }),
  spec: z.strictObject({
    issuer: z.string().check(z.minLength(1), z.maxLength(2048)),
    audience: Audience,
    maxTokenLifetimeSeconds: z._default(
      z.int().check(z.minimum(60), z.maximum(86_400)),
      DEFAULT_MAX_TOKEN_LIFETIME_SECONDS,
    ),
  }),
})

export interface OidcAttestor {
  readonly name: string
  /** An https URL whose discovery document says where the keys are. */
  readonly issuer: string
  /** What a subject token must be made out to, and to nothing else. */
  readonly audience: string
  readonly maxTokenLifetimeSeconds: number
}

export function compileOidcAttestor({ metadata, spec }: z.infer<typeof OidcAttestorManifest>): OidcAttestor {
  return { name: metadata.name, ...spec }
}

/** Two wildcards at most: a third would let a long value cost more than a request may. */
export const ClaimPattern = z
  .string()
  .check(
    z.regex(/^[\x21-\x7e]{1,512}$/, 'not 1 to 512 printable characters'),
    z.regex(/^[^*]*(?:\*{1,2}[^*]*){0,2}$/, 'has more than two wildcards'),
  )

/** A claim that is longer is matched by nothing. */
const MAX_VALUE_LENGTH = 1024

/** The name of a claim at the top level of a token. */
export const ClaimName = z.string().check(z.regex(/^[A-Za-z][A-Za-z0-9_.:/-]{0,127}$/, 'not the name of a claim'))

/**
 * A pattern for the whole of a claim's value. `*` stands for one or more characters other than `/` and `:`, which is what
 * providers put their values together with; `**` for any that there are.
 */
export function compilePattern(pattern: string): (value: unknown) => boolean {
  const parts = pattern.split(/(\*{1,2})/)
  const source = parts.map((part) => (part === '*' ? '[^/:]+' : part === '**' ? '.*' : RegExp.escape(part))).join('')
  const whole = new RegExp(`^(?:${source})$`, 's')
  return (value) => typeof value === 'string' && value.length <= MAX_VALUE_LENGTH && whole.test(value)
}
