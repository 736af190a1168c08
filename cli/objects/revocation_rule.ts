/**
 * An AuthenticationConfiguration with one rule more than its template has: the one that refuses what is revoked (T-13).
 *
 * The rule is a claim validation rule. It sees the claims themselves, whatever name a mapping makes of them.
 *
 * @see [Structured authentication configuration](https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration)
 */

import { isDeepStrictEqual } from 'node:util'
import { parseAllDocuments, stringify } from 'yaml'
import { isRecord } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { parseDocuments } from './manifest_file.ts'
import type { Revoked } from './revocation.ts'

/** kube-apiserver logs it. By it the rule is known again. */
const MESSAGE = 'the token or its subject is revoked'

const HEADER = '# Made by `spiffe-edge structured-auth sync` from its template: what is changed here is lost.\n'

/** What every reader of YAML 1.1 takes as it stands, and no line break but our own. */
const PLAIN = /^[\n\x20-\x7e\u{a0}-\u{2027}\u{202a}-\u{d7ff}\u{e000}-\u{fefe}\u{ff00}-\u{fffd}\u{10000}-\u{10ffff}]*$/u

interface Entry {
  readonly claimValidationRules?: readonly unknown[]
}

/** A template, with the place for the rule found. */
interface Template {
  readonly configuration: Readonly<Record<string, unknown>> & { readonly jwt: readonly unknown[] }
  /** Of the one entry that trusts our issuer. */
  readonly index: number
  readonly entry: Entry
}

/**
 * @param text the template, as YAML or JSON
 * @param issuer whose tokens the rule is about
 * @returns YAML that means what the template means, and the rule if there is something to refuse
 * @throws Failure
 */
export function renderWithRevocations(text: string, issuer: string, revoked: Revoked): string {
  const { configuration, index, entry } = parseTemplate(text, issuer)
  const rule = ruleFor(revoked)
  const jwt = rule
    ? configuration.jwt.with(index, { ...entry, claimValidationRules: [...(entry.claimValidationRules ?? []), rule] })
    : configuration.jwt
  const rendered =
    HEADER +
    stringify(
      { ...configuration, jwt },
      {
        defaultStringType: 'QUOTE_DOUBLE',
        defaultKeyType: 'PLAIN',
        doubleQuotedAsJSON: true,
        lineWidth: 0,
        aliasDuplicateObjects: false,
      },
    )
  if (!PLAIN.test(rendered)) throw new Failure('the template has characters in it that YAML may not hold')
  // What stands between the control plane and a mistake of ours: the file is read as it will be, and compared.
  if (!isDeepStrictEqual(withoutLast(readBothWays(rendered, 'the result'), index, entry, rule), configuration))
    throw new Failure('the rule cannot be put into this template')
  return rendered
}

/** @returns the rule, or null where nothing is revoked */
function ruleFor({ tokens, subjects }: Revoked): { expression: string; message: string } | null {
  const conditions = [
    // A token of another maker may lack it.
    ...(tokens.length > 0 ? [`!(has(claims.jti) && claims.jti in ${listOf(tokens)})`] : []),
    ...(subjects.length > 0 ? [`!(claims.sub in ${listOf(subjects)})`] : []),
  ]
  return conditions.length > 0 ? { expression: conditions.join(' && '), message: MESSAGE } : null
}

/** A list of CEL. None of the characters that the grammars of ids and SPIFFE IDs allow ends a literal, or escapes. */
function listOf(texts: readonly string[]): string {
  return `[${texts.map((text) => `'${text}'`).join(',')}]`
}

function parseTemplate(text: string, issuer: string): Template {
  const value = readBothWays(text, 'the template')
  if (!isRecord(value) || value.kind !== 'AuthenticationConfiguration')
    throw new Failure('the template is no AuthenticationConfiguration')
  const { jwt } = value
  if (!Array.isArray(jwt)) throw new Failure('the template has no list jwt')
  const ours = jwt.flatMap((entry: unknown, index) =>
    isRecord(entry) && isRecord(entry.issuer) && entry.issuer.url === issuer ? [{ entry, index }] : [],
  )
  const [found] = ours
  if (!found || ours.length > 1)
    throw new Failure(
      `the template has ${ours.length === 0 ? 'no' : 'more than one'} entry of jwt with issuer.url ${issuer}`,
    )
  const { entry, index } = found
  const { claimValidationRules: rules = [] } = entry
  if (!Array.isArray(rules)) throw new Failure('claimValidationRules of the template is no list')
  if (rules.some((rule) => isRecord(rule) && rule.message === MESSAGE))
    throw new Failure('the template has a revocation rule already: is it a file that sync has written?')
  return { configuration: { ...value, jwt }, index, entry }
}

/**
 * kube-apiserver reads YAML 1.1, where `yes` is not a text. We read 1.2, and nothing that is another thing in the other.
 *
 * @throws Failure
 */
function readBothWays(text: string, name: string): unknown {
  const [document, ...more] = parseDocuments(text, name)
  if (!document || more.length > 0) throw new Failure(`${name} is not one YAML document`)
  const [old] = parseAllDocuments(text, { version: '1.1', strict: true, uniqueKeys: true, logLevel: 'silent' })
  if (!old || old.errors.length > 0 || !isDeepStrictEqual(old.toJS({ maxAliasCount: 0 }), document.value))
    throw new Failure(`${name} means one thing in YAML 1.1 and another in 1.2: put its texts into quotes`)
  return document.value
}

/** @returns `written` without its rule, by which it must be the template again; null where the rule is not the one that was meant */
function withoutLast(written: unknown, index: number, { claimValidationRules }: Entry, rule: object | null): unknown {
  if (rule === null || !isRecord(written) || !Array.isArray(written.jwt)) return written
  const { claimValidationRules: rules, ...rest } = written.jwt[index] ?? {}
  if (!Array.isArray(rules) || !isDeepStrictEqual(rules.at(-1), rule)) return null
  const entry = claimValidationRules === undefined ? rest : { ...rest, claimValidationRules: rules.slice(0, -1) }
  if (claimValidationRules === undefined && rules.length !== 1) return null
  return { ...written, jwt: written.jwt.with(index, entry) }
}
