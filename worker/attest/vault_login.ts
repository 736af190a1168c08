/**
 * Attests a pod that logs in at a mount of Vault's, in the steps of the plugin that the mount stands for and with its words.
 * The mount says which cluster the pod must be of, so nobody else's token gets further than its issuer.
 *
 * What is verified offline comes first, as at every door; the plugin leaves most of it to the API server (T-6).
 *
 * @see [Kubernetes auth method](https://developer.hashicorp.com/vault/docs/auth/kubernetes)
 */

import { keyMark } from '../../keys/key_set.ts'
import { readPublicKeyPem } from '../../keys/public_key_pem.ts'
import type { KubernetesApi } from '../cluster/kubernetes_api.ts'
import { CLOCK_SKEW_SECONDS, JwtError, parseAudience, parseJwt } from '../jwt.ts'
import type { Cluster } from '../policy/cluster.ts'
import type { VaultMount, VaultMountConfig } from '../policy/vault_mount.ts'
import { bindsLabels, bindsNamespace, bindsServiceAccount, type VaultRole } from '../policy/vault_role.ts'
import { Refusal } from '../refusal.ts'
import { attested, type PodAttestation } from './attestation.ts'
import { podSelectors } from './selectors.ts'
import {
  refusing,
  type ServiceAccountAttestor,
  type ServiceAccountAttestorDeps,
  type TokenSource,
  tokenRefusal,
  verifyServiceAccountToken,
} from './service_account.ts'
import { type TokenFacts, TokenReviews } from './token_review.ts'

/** What the plugin's documentation has for an issuer that is to be validated and is not configured. */
const DEFAULT_ISSUER = 'kubernetes/serviceaccount'

/** The workload that a token was given to, as it was attested then. */
export interface LoggedIn extends TokenFacts {
  readonly cluster: string
}

/** A mount with what it takes to believe its tokens. */
interface LoginSource {
  readonly mount: VaultMount
  readonly config: VaultMountConfig
  readonly source: TokenSource
  /** null where the cluster's record names no API server. */
  readonly reviews: TokenReviews | null
  readonly reviewer: Cluster['reviewer']
  /** Of the keys that a token may be signed with; null where the cluster's own word is enough. */
  readonly keyMarks: Promise<ReadonlySet<string>> | null
}

export class VaultLoginAttestor {
  readonly #sources = new Map<string, LoginSource>()

  /** @param previous whose reviews are kept for mounts and clusters that have not changed */
  constructor(
    mounts: Iterable<VaultMount>,
    serviceAccounts: ServiceAccountAttestor,
    deps: ServiceAccountAttestorDeps,
    previous?: VaultLoginAttestor,
  ) {
    for (const mount of mounts) {
      const source = mount.config && serviceAccounts.source(mount.config.cluster)
      if (!mount.config || !source) continue
      const before = previous ? previous.#sources.get(mount.path) : undefined
      this.#sources.set(
        mount.path,
        before?.source === source && JSON.stringify(before.config) === JSON.stringify(mount.config)
          ? { ...before, mount }
          : makeSource(mount, mount.config, source, deps),
      )
    }
  }

  /**
   * @param jwt the service account token
   * @param now seconds since the epoch
   * @throws Refusal
   */
  async attest(role: VaultRole, jwt: string, now: number): Promise<PodAttestation> {
    const login = this.#sources.get(role.mount)
    if (!login) throw new Refusal('mount_not_configured', `VaultMount ${role.mount} has no config`)
    const { source, reviews } = login
    const jws = refusing(() => parseJwt(jwt))
    const audiences = checkOrigin(jws.payload, role, login)
    checkIssuedAt(jws.payload, now)
    const rules = {
      requireBoundPod: source.cluster.requireBoundPod,
      // The API server's own audience is that of the tokens which every pod has.
      takesExtended: audiences.length === 0,
    }
    const key = login.keyMarks && (await source.keys.find(jws.header.kid))
    if (key && !(await login.keyMarks)?.has(key.mark))
      throw new Refusal('token_key', `not signed with one of the pem_keys of VaultMount ${role.mount}`)
    const facts = await verifyServiceAccountToken(jws, source, rules, now).catch((error: unknown) => {
      throw error instanceof Refusal && error.reason === 'token_claims' && lacksUid(jws.payload)
        ? new Refusal('token_uid_missing', 'kubernetes.io names a service account without UID')
        : error
    })
    const attestation = attestedPod(facts, source.cluster.name, facts.expiresAt, reviews !== null)
    await checkBinding(role, attestation, reviews, jwt)
    await reviews?.review(jwt, facts, audiences)
    return attestation
  }

  /**
   * @param expiresAt seconds since the epoch, of whatever shows that it has logged in
   * @returns the workload as an attestation, for what it asks later
   */
  recall(workload: LoggedIn, expiresAt: number): PodAttestation {
    return attestedPod(workload, workload.cluster, expiresAt, false)
  }

  /**
   * Whether the role still is for a workload that has logged in with it.
   *
   * @throws Refusal
   */
  async checkBinding(role: VaultRole, workload: PodAttestation): Promise<void> {
    await checkBinding(role, workload, this.#sources.get(role.mount)?.reviews ?? null, null)
  }

  /** Whether the API server can be asked later, without the pod's own token, if the pod is still there (T-8). */
  canOutlive(mount: string, { pod }: TokenFacts): boolean {
    const { reviews = null, reviewer } = this.#sources.get(mount) ?? {}
    return reviews !== null && pod !== null && reviewer?.by !== 'client'
  }

  /**
   * Asks whether the pod is still there.
   *
   * @throws Refusal
   */
  async confirm(mount: string, workload: LoggedIn): Promise<void> {
    const login = this.#sources.get(mount)
    if (!login || login.source.cluster.name !== workload.cluster)
      throw new Refusal('mount_not_configured', `VaultMount ${mount} is of another cluster`)
    if (!login.reviews) throw new Refusal('cluster_api_unavailable', `cluster ${workload.cluster} has no connection`)
    await login.reviews.confirmPod(workload)
  }
}

function attestedPod(facts: TokenFacts, cluster: string, expiresAt: number, live: boolean): PodAttestation {
  const { namespace, serviceAccount, pod, node } = facts
  return attested({
    kind: 'pod',
    door: 'vault',
    cluster,
    namespace,
    serviceAccount,
    pod,
    node,
    selectors: podSelectors({ namespace, serviceAccountName: serviceAccount.name, pod, nodeName: node?.name ?? null }),
    live,
    expiresAt,
  })
}

function makeSource(
  mount: VaultMount,
  config: VaultMountConfig,
  source: TokenSource,
  deps: ServiceAccountAttestorDeps,
): LoginSource {
  const reviewer = reviewerOf(mount.path, config, source.cluster)
  const own = reviewer !== source.cluster.reviewer
  const cluster = { ...source.cluster, reviewer }
  const api: KubernetesApi | null = own ? deps.api(cluster) : source.api
  return {
    mount,
    config,
    source,
    reviewer,
    reviews: own ? api && new TokenReviews(cluster, api, deps) : source.reviews,
    keyMarks:
      config.pem_keys.length === 0
        ? null
        : Promise.all(config.pem_keys.map(async (pem) => keyMark(await readPublicKeyPem(pem)))).then(
            (marks) => new Set(marks),
            // What is no key has signed nothing.
            () => new Set(),
          ),
  }
}

/** The order that the plugin has, but that the record's reviewer stands in the place of a token on Vault's own disk (VC-4). */
function reviewerOf(path: string, config: VaultMountConfig, { reviewer }: Cluster): Cluster['reviewer'] {
  if (config.token_reviewer_jwt)
    return { by: 'sealed', sealed: config.token_reviewer_jwt, purpose: reviewerPurpose(path) }
  return config.disable_local_ca_jwt ? { by: 'client' } : reviewer
}

/** What the reviewer's token of a mount is sealed for: moved to another mount it does not open. */
export function reviewerPurpose(mount: string): string {
  return `token_reviewer_jwt of ${mount}`
}

/**
 * Whoever asks has chosen mount and role, so what the token says of itself must be what those say.
 *
 * @returns what the API server is to be asked about; nothing means its own audience (T-6)
 */
function checkOrigin(
  { iss, aud }: Readonly<Record<string, unknown>>,
  { spec, mount }: VaultRole,
  { config, source: { cluster } }: LoginSource,
): readonly string[] {
  if (!config.disable_iss_validation && iss !== (config.issuer || DEFAULT_ISSUER))
    throw new Refusal('token_issuer_mismatch', `not the issuer in the config of VaultMount ${mount}`)
  if (iss !== cluster.issuer) throw new Refusal('token_issuer', `not the issuer of Cluster ${cluster.name}`)
  const audience = refusing(() => parseAudience(aud))
  const configured = config.audiences.length > 0 ? config.audiences : cluster.audiences
  const accepted = spec.audience === '' ? configured : [spec.audience]
  if (audience.every((value) => accepted.includes(value))) return accepted
  if (spec.audience === '' && config.allow_api_server_audience && !audience.some((value) => accepted.includes(value)))
    return []
  throw tokenRefusal(new JwtError('audience'))
}

function lacksUid({ 'kubernetes.io': claim }: Readonly<Record<string, unknown>>): boolean {
  const { serviceaccount } = (claim ?? {}) as { serviceaccount?: { name?: unknown; uid?: unknown } | null }
  return typeof serviceaccount?.name === 'string' && !serviceaccount.uid
}

/** The plugin tells two times in the future apart; elsewhere nobody asks. */
function checkIssuedAt({ nbf, iat }: Readonly<Record<string, unknown>>, now: number): void {
  const isLater = (time: unknown) => typeof time === 'number' && time > now + CLOCK_SKEW_SECONDS
  if (isLater(iat) && !isLater(nbf)) throw new Refusal('token_issued_in_future', 'iat is in the future')
}

/**
 * @param jwt for a reviewer that shows the client's own token; null where there is none any more
 * @throws Refusal
 */
async function checkBinding(
  role: VaultRole,
  workload: PodAttestation,
  reviews: TokenReviews | null,
  jwt: string | null,
): Promise<void> {
  if (!bindsServiceAccount(role, workload))
    throw new Refusal('service_account_not_bound', 'not in bound_service_account_names')
  if (bindsNamespace(role, workload)) return
  if (role.namespaceLabels && !reviews)
    throw new Refusal('namespace_unknown', 'the cluster has no connection to ask for the labels of a namespace')
  if (role.namespaceLabels && reviews) {
    const labels = await reviews.findNamespace(workload, jwt).catch((error: unknown) => {
      if (!(error instanceof Refusal)) throw error
      throw new Refusal('namespace_unknown', error.detail)
    })
    if (labels && bindsLabels(role, labels)) return
  }
  throw new Refusal('namespace_not_bound', 'neither in bound_service_account_namespaces nor by its labels')
}
