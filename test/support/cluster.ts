/**
 * A cluster as we see it from outside: an issuer of projected service account tokens in the exact shape of a real
 * kube-apiserver's (SA-1 to SA-3), which can also be made to issue what a real one never would.
 */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import { NOW } from './clock.ts'
import { makeTokenKey, signToken, type TokenKey } from './tokens.ts'

/** What kubeadm, kind and k3s call themselves. */
export const SHARED_ISSUER = 'https://kubernetes.default.svc.cluster.local'

/** Each text here is found nowhere else, so that a log or an answer can be searched for it. */
export const POD = {
  namespace: 'payments-namespace',
  serviceAccount: { name: 'checkout-account', uid: 'aa9aa8ff-98d0-41e7-9bb7-0800276d99bf' },
  pod: { name: 'checkout-67c559dbb7-r5d5s', uid: '79261129-6b60-41e9-9054-0800277ac80f' },
  node: { name: 'node-seventeen', uid: '5dbb7b21-65fe-41e9-b1b0-0800277ac80f' },
} as const

/** A change to a token. A member that is undefined is left out of it, and a text stands for the whole part. */
export interface TokenChange {
  readonly header?: object | string
  readonly claims?: object | string
  /** Members of the claim `kubernetes.io`. */
  readonly kubernetes?: object
  /** Signs in place of the cluster's own key. `kid` and `alg` in the header stay what they were. */
  readonly key?: TokenKey
  /** Seconds since the epoch, of `iat` and `nbf`. */
  readonly now?: number
}

export class FakeCluster {
  readonly name: string
  readonly issuer: string
  readonly audience: string
  /** The first one signs; all are published. */
  readonly keys: TokenKey[]

  private constructor(name: string, issuer: string, audience: string, keys: TokenKey[]) {
    this.name = name
    this.issuer = issuer
    this.audience = audience
    this.keys = keys
  }

  /** @param options a real cluster signs with RS256; ES256 is as good for most tests, and its keys are made faster */
  static async create(
    name: string,
    options: { issuer?: string; audience?: string; alg?: AlgorithmName; key?: TokenKey } = {},
  ): Promise<FakeCluster> {
    const { issuer = `https://${name}.example.org`, audience = 'spiffe-edge', alg = 'ES256' } = options
    return new FakeCluster(name, issuer, audience, [options.key ?? (await makeTokenKey(alg))])
  }

  get key(): TokenKey {
    const [key] = this.keys
    if (!key) throw new TypeError('the cluster has no key')
    return key
  }

  /** A new key signs from now on; the others stay published. */
  async rotate(alg: AlgorithmName = 'ES256'): Promise<void> {
    this.keys.unshift(await makeTokenKey(alg))
  }

  /** What the kubelet asks for by default: an hour, for one pod. */
  claims(now: number = NOW) {
    return {
      aud: [this.audience],
      exp: now + 3607,
      iat: now,
      iss: this.issuer,
      jti: '0a1b2c3d-token-id-4e5f',
      'kubernetes.io': {
        namespace: POD.namespace,
        node: { ...POD.node },
        pod: { ...POD.pod },
        serviceaccount: { ...POD.serviceAccount },
      },
      nbf: now,
      sub: `system:serviceaccount:${POD.namespace}:${POD.serviceAccount.name}`,
    }
  }

  async token({ header = {}, claims = {}, kubernetes = {}, key = this.key, now = NOW }: TokenChange = {}) {
    const { alg, kid } = this.key
    const usual = this.claims(now)
    return signToken(
      typeof header === 'string' ? header : { alg, kid, ...header },
      typeof claims === 'string'
        ? claims
        : { ...usual, 'kubernetes.io': { ...usual['kubernetes.io'], ...kubernetes }, ...claims },
      key,
    )
  }

  /** The token of another pod of this cluster. */
  async tokenOf(namespace: string, serviceAccount: string, pod = `${serviceAccount}-67c559dbb7-r5d5s`, now = NOW) {
    return this.token({
      now,
      claims: { sub: `system:serviceaccount:${namespace}:${serviceAccount}` },
      kubernetes: {
        namespace,
        serviceaccount: { name: serviceAccount, uid: 'uid-1' },
        pod: { name: pod, uid: 'uid-2' },
      },
    })
  }

  jwks() {
    return { keys: this.keys.map(({ publicJwk }) => publicJwk) }
  }

  /** @see SA-9 */
  discovery() {
    return {
      issuer: this.issuer,
      jwks_uri: `${this.issuer}/openid/v1/jwks`,
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: [this.key.alg],
    }
  }

  /**
   * The cluster's record in the manifest.
   *
   * @param spec is laid over one with inline keys
   */
  record(spec: object = {}): object {
    return {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: this.name },
      spec: { issuer: this.issuer, audiences: [this.audience], jwks: { inline: this.jwks() }, ...spec },
    }
  }
}
