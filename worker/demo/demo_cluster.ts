/**
 * A cluster that exists only in development: one key, one pod, and tokens for it in the exact shape of a real
 * kube-apiserver's. None of this is in the deployed worker (T-12).
 */

import { DurableObject } from 'cloudflare:workers'
import { base64url, SignJWT } from 'jose'

/** What kubeadm, kind and k3s call themselves. */
const ISSUER = 'https://kubernetes.default.svc.cluster.local'
/** What a kubelet asks for unless a pod says otherwise. */
const TOKEN_LIFETIME_SECONDS = 3600

const NAMESPACE = 'default'
const SERVICE_ACCOUNT = 'web'

interface StoredKey {
  readonly kid: string
  readonly publicJwk: JsonWebKey
  readonly privateJwk: JsonWebKey
}

/** Holds the demo cluster's key, which is made when it is first asked for. */
export class DemoCluster extends DurableObject {
  /** @returns the manifest objects that register the cluster and its one workload, as YAML */
  async manifest(): Promise<string> {
    const { kid, publicJwk } = await this.#key()
    const { kty, n, e } = publicJwk
    const cluster = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'demo' },
      spec: { issuer: ISSUER, jwks: { inline: { keys: [{ kty, n, e, kid, use: 'sig', alg: 'RS256' }] } } },
    }
    const registration = {
      apiVersion: 'kubespiffe.io/v1alpha1',
      kind: 'WorkloadRegistration',
      metadata: { name: 'demo' },
      spec: {
        clusters: ['demo'],
        selector: { namespace: NAMESPACE, serviceAccountName: SERVICE_ACCOUNT },
        audiences: ['k8s'],
      },
    }
    return `---\n${JSON.stringify(cluster)}\n---\n${JSON.stringify(registration)}\n`
  }

  /** @returns a pod's projected service account token, as the kubelet would have put it into the pod */
  async token(): Promise<string> {
    const { kid, privateJwk } = await this.#key()
    const now = Math.floor(Date.now() / 1000)
    const key = await crypto.subtle.importKey('jwk', privateJwk, RS256, false, ['sign'])
    return new SignJWT({
      aud: ['spiffe-edge'],
      exp: now + TOKEN_LIFETIME_SECONDS,
      iat: now,
      iss: ISSUER,
      jti: crypto.randomUUID(),
      'kubernetes.io': {
        namespace: NAMESPACE,
        node: { name: 'node-1', uid: '5dbb7b21-65fe-41e9-b1b0-0800277ac80f' },
        pod: { name: `${SERVICE_ACCOUNT}-67c559dbb7-r5d5s`, uid: '79261129-6b60-41e9-9054-0800277ac80f' },
        serviceaccount: { name: SERVICE_ACCOUNT, uid: 'aa9aa8ff-98d0-41e7-9bb7-0800276d99bf' },
      },
      nbf: now,
      sub: `system:serviceaccount:${NAMESPACE}:${SERVICE_ACCOUNT}`,
    })
      .setProtectedHeader({ alg: 'RS256', kid })
      .sign(key)
  }

  async #key(): Promise<StoredKey> {
    return this.ctx.blockConcurrencyWhile(async () => {
      const stored = await this.ctx.storage.get<StoredKey>('key')
      if (stored) return stored
      const pair = (await crypto.subtle.generateKey(RS256, true, ['sign', 'verify'])) as CryptoKeyPair
      const spki = (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer
      const key = {
        kid: base64url.encode(new Uint8Array(await crypto.subtle.digest('SHA-256', spki))),
        publicJwk: (await crypto.subtle.exportKey('jwk', pair.publicKey)) as JsonWebKey,
        privateJwk: (await crypto.subtle.exportKey('jwk', pair.privateKey)) as JsonWebKey,
      }
      await this.ctx.storage.put('key', key)
      return key
    })
  }
}

const RS256 = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  modulusLength: 2048,
  publicExponent: Uint8Array.of(1, 0, 1),
}
