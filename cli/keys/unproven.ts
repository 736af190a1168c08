/** Why it is not certain which keys the API servers of a cluster hold, and what can be done about it (T-21). */

export type UnprovenReason =
  | 'no_apiserver'
  | 'not_registered'
  | 'count_not_stated'
  | 'kubeconfig'
  /** The issuer itself still answers with the key. */
  | 'still_published'
  /** There is no answer, or none that says anything. */
  | 'unreachable'
  /** A token that nobody can believe is believed. */
  | 'vouched_for'
  | 'metrics_unreadable'
  | 'metric_missing'
  | 'other_key_set'
  | 'fewer_apiservers'
  | 'more_apiservers'
  | 'no_canary'
  | 'canary_never_accepted'
  | 'canary_still_accepted'
  | 'canary_expired'

export interface Unproven {
  readonly reason: UnprovenReason
  /** For people; null where the reason says it all. */
  readonly detail: string | null
}

const WORDS: Readonly<Record<UnprovenReason, string>> = {
  no_apiserver: 'no API server was given: --apiserver, --apiservers and --kubeconfig',
  not_registered: 'the worker has no such cluster',
  count_not_stated: 'it was not said how many API servers there are: --apiservers',
  kubeconfig: 'the kubeconfig cannot be used',
  still_published: 'the issuer still answers with the key, or does not answer',
  unreachable: 'the API server cannot be asked',
  vouched_for:
    'something in between shows a credential of its own, so that no token is looked at: give the API server itself',
  metrics_unreadable: 'its metrics cannot be read: the user of the context needs get on /metrics',
  metric_missing:
    'its metrics do not say which keys it holds: Kubernetes says so since 1.35, and of issuers that it trusts',
  other_key_set: 'an API server holds another key set',
  fewer_apiservers: 'fewer API servers were seen than stated',
  more_apiservers: 'more API servers were seen than stated',
  no_canary: 'there is no token of the key to try',
  canary_never_accepted: 'the token of the key was refused from the start, so its refusal proves nothing',
  canary_still_accepted: 'a token of the key is still accepted',
  canary_expired:
    'the token of the key has expired, or the API server does not tell the time: its refusal proves nothing',
}

export function describeUnproven({ reason, detail }: Unproven): string {
  return detail === null ? WORDS[reason] : `${WORDS[reason]} (${detail})`
}
