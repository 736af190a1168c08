/**
 * The SPIFFE ID of a registration: literal segments, and variables that an attested fact fills. A variable is a whole
 * segment, so no fact can reach beyond its place (T-4).
 */

import { isPathSegment, SpiffeId, SpiffeIdError, type TrustDomain } from '../spiffe/id.ts'

/** What a template may be filled with. */
export const TEMPLATE_VARIABLES = ['cluster', 'namespace', 'serviceAccountName', 'podName', 'podUID'] as const
export type TemplateVariable = (typeof TEMPLATE_VARIABLES)[number]
export type TemplateFacts = { readonly [V in TemplateVariable]: string | null }

export type TemplateSegment = { readonly literal: string } | { readonly variable: TemplateVariable }

/** The identities that the AuthenticationConfiguration maps to usernames of their own (T-2). */
export const SERVICE_ACCOUNT_ID = '/ns/{namespace}/sa/{serviceAccountName}'
export const CLUSTER_SERVICE_ACCOUNT_ID = '/cluster/{cluster}/ns/{namespace}/sa/{serviceAccountName}'

export class SpiffeIdTemplate {
  readonly segments: readonly TemplateSegment[]

  private constructor(segments: readonly TemplateSegment[]) {
    this.segments = segments
  }

  /**
   * @param text `spiffe://<trust domain>/<segment>…`, where a segment is literal or `{variable}`
   * @throws SpiffeIdError if it is no SPIFFE ID of `trustDomain` even with every variable filled in, or has no path
   */
  static parse(text: string, trustDomain: TrustDomain): SpiffeIdTemplate {
    const prefix = `${trustDomain}/`
    if (!text.startsWith(prefix))
      throw new SpiffeIdError(text.startsWith('spiffe://') ? 'missing_trust_domain' : 'wrong_scheme')
    const segments = text.slice(prefix.length).split('/').map(parseSegment)
    // A stand-in for each variable lets the one parser of SPIFFE IDs judge the literal rest.
    SpiffeId.of(trustDomain, path(segments.map((segment) => ('literal' in segment ? segment.literal : 'x'))))
    return new SpiffeIdTemplate(segments)
  }

  /**
   * @returns the SPIFFE ID, or null if a fact is absent or is not one path segment
   */
  expand(trustDomain: TrustDomain, facts: TemplateFacts): SpiffeId | null {
    const filled: string[] = []
    for (const segment of this.segments) {
      const text = 'literal' in segment ? segment.literal : facts[segment.variable]
      if (text === null || !isPathSegment(text)) return null
      filled.push(text)
    }
    try {
      return SpiffeId.of(trustDomain, path(filled))
    } catch {
      return null
    }
  }

  uses(variable: TemplateVariable): boolean {
    return this.segments.some((segment) => 'variable' in segment && segment.variable === variable)
  }
}

/**
 * Whether `id` says what an identity of the mapped shapes may say of `facts`. An ID of any other shape says nothing of
 * them and passes.
 */
export function agreesWithFacts(id: SpiffeId, facts: TemplateFacts): boolean {
  const [first, ...rest] = id.path.slice(1).split('/')
  const [ns, namespace, sa, serviceAccountName, ...beyond] = first === 'cluster' ? rest.slice(1) : [first, ...rest]
  if (ns !== 'ns' || sa !== 'sa' || serviceAccountName === undefined || beyond.length > 0) return true
  if (first === 'cluster' && rest[0] !== facts.cluster) return false
  return namespace === facts.namespace && serviceAccountName === facts.serviceAccountName
}

function parseSegment(text: string): TemplateSegment {
  const [, name] = /^\{([A-Za-z]+)\}$/.exec(text) ?? []
  const variable = TEMPLATE_VARIABLES.find((known) => known === name)
  return variable ? { variable } : { literal: text }
}

function path(segments: readonly string[]): string {
  return `/${segments.join('/')}`
}
