/** Who may change the policy at run time, and who may read what is revoked. Named in the deployed manifest and nowhere else (T-11). */

import * as z from 'zod/mini'
import { isCanonical } from '../../keys/key_set.ts'
import { Audience, ClusterName } from './cluster.ts'

const PublicKey = z
  .strictObject({ kty: z.literal('EC'), crv: z.literal('P-256'), x: z.string(), y: z.string() })
  .check(z.refine((jwk) => isCanonical(jwk), 'not an EC P-256 key in its canonical form'))

/** The one cluster whose revocations may be read, and nothing else. Absent: everything may be done. */
const RevocationsOf = z.optional(ClusterName)

/** The manifest's form of an administrator: a public key, or one subject of one identity provider. */
export const AdminManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('Admin'),
  metadata: z.strictObject({
    name: z.string().check(z.regex(/^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/, 'not a name')),
  }),
  spec: z.union([
    z.strictObject({ publicKey: PublicKey, revocationsOf: RevocationsOf }),
    z.strictObject({
      token: z.strictObject({
        issuer: z.string().check(z.minLength(1), z.maxLength(2048)),
        audience: Audience,
        subject: z.string().check(z.minLength(1), z.maxLength(255)),
      }),
      revocationsOf: RevocationsOf,
    }),
  ]),
})

export type Admin = { readonly name: string; readonly revocationsOf: string | null } & (
  | { readonly by: 'key'; readonly publicKey: JsonWebKey }
  | { readonly by: 'token'; readonly issuer: string; readonly audience: string; readonly subject: string }
)

export function compileAdmin({ metadata, spec }: z.infer<typeof AdminManifest>): Admin {
  const { name } = metadata
  const { revocationsOf = null } = spec
  return 'publicKey' in spec
    ? { name, revocationsOf, by: 'key', publicKey: spec.publicKey }
    : { name, revocationsOf, by: 'token', ...spec.token }
}
