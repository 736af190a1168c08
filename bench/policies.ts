/** The product with one registration, and with as many clusters and registrations as anybody has. */

import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What kubeadm, kind and k3s call themselves: all of the clusters are told apart by their audiences. */
const ISSUER = 'https://kubernetes.default.svc.cluster.local'
const CLUSTERS = 200
const REGISTRATIONS = 10_000
const KID = 'bench'
/** What the exchange is for. No API server, so that both answers are of one kind. */
export const AUDIENCE = 'https://vault.example.org'

export interface Policies {
  /** Configurations for `workerd serve`. */
  readonly one: string
  readonly many: string
  /** Subject tokens of a pod that is registered in both. */
  readonly tokens: readonly string[]
}

/** @param count of tokens */
export function writePolicies(count: number): Policies {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const first = [cluster(0, publicKey), registration(0)]
  const clusters = Array.from({ length: CLUSTERS - 1 }, (_, index) =>
    cluster(index + 1, generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey),
  )
  const registrations = Array.from({ length: REGISTRATIONS - 1 }, (_, index) => registration(index + 1))
  return {
    one: writeConfiguration('one', first),
    many: writeConfiguration('many', [...first, ...clusters, ...registrations]),
    tokens: Array.from({ length: count }, () => subjectToken(privateKey)),
  }
}

/** The record of a cluster whose tokens {@link subjectToken} makes, if it is the first. */
export function cluster(index: number, publicKey: KeyObject): object {
  const key = { ...publicKey.export({ format: 'jwk' }), kid: index === 0 ? KID : `kid-${index}`, use: 'sig' }
  return {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Cluster',
    metadata: { name: `cluster-${index}` },
    spec: { issuer: ISSUER, audiences: [`edge-${index}`], jwks: { inline: { keys: [key] } } },
  }
}

function registration(index: number): object {
  const namespace = `namespace-${Math.floor(index / CLUSTERS) % 10}`
  return {
    apiVersion: 'kubespiffe.io/v1alpha1',
    kind: 'WorkloadRegistration',
    metadata: { name: `registration-${index}` },
    spec: {
      clusters: [`cluster-${index % CLUSTERS}`],
      selector: { namespace, serviceAccountName: `service-account-${index}` },
      audiences: [AUDIENCE],
    },
  }
}

/** As a kubelet projects it, for the pod of the first registration. */
export function subjectToken(key: KeyObject): string {
  const now = Math.floor(Date.now() / 1000)
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = {
    aud: ['edge-0'],
    exp: now + 3600,
    iat: now,
    iss: ISSUER,
    jti: crypto.randomUUID(),
    'kubernetes.io': {
      namespace: 'namespace-0',
      node: { name: 'node-1', uid: crypto.randomUUID() },
      pod: { name: 'web-67c559dbb7-r5d5s', uid: crypto.randomUUID() },
      serviceaccount: { name: 'service-account-0', uid: crypto.randomUUID() },
    },
    nbf: now,
    sub: 'system:serviceaccount:namespace-0:service-account-0',
  }
  const signingInput = `${encode({ alg: 'RS256', kid: KID })}.${encode(claims)}`
  return `${signingInput}.${sign('sha256', Buffer.from(signingInput), key).toString('base64url')}`
}

/** That of `npm start`, two folders from the top like the one that it is made of, with another manifest. */
export function writeConfiguration(name: string, objects: readonly object[]): string {
  mkdirSync('dist/bench', { recursive: true })
  writeFileSync(`dist/bench/${name}.yaml`, objects.map((object) => `---\n${JSON.stringify(object)}\n`).join(''))
  const text = readFileSync('deploy/workerd/development.capnp', 'utf8')
  const file = join('dist/bench', `${name}.capnp`)
  writeFileSync(file, text.replace('../../worker/manifest.yaml', `${name}.yaml`))
  return file
}
