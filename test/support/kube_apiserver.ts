/** A real kube-apiserver for one test file, its own kubectl, and the pods that ask from it. */

import { execFile } from 'node:child_process'
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { startLineProgram } from './lines.ts'

/** What kubeadm, kind and k3s call themselves. */
export const SERVICE_ACCOUNT_ISSUER = 'https://kubernetes.default.svc.cluster.local'

export interface ServiceAccountKey {
  readonly pem: string
  readonly privateKey: KeyObject
  /** As kube-apiserver publishes it. */
  readonly jwk: Record<string, unknown>
}

/** @returns a key to sign service account tokens with, and its public half by the `kid` that kube-apiserver will give it */
export function createServiceAccountKey(kind: 'RS256' | 'ES256'): ServiceAccountKey {
  const { privateKey } =
    kind === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const publicKey = createPublicKey(privateKey)
  const kid = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url')
  const pem = privateKey.export({ type: kind === 'RS256' ? 'pkcs1' : 'sec1', format: 'pem' }) as string
  return { pem, privateKey, jwk: { ...publicKey.export({ format: 'jwk' }), use: 'sig', kid, alg: kind } }
}

export interface KubeApiserver {
  readonly server: string
  /** PEM. */
  readonly ca: string
  /** The administrator's, a file. */
  readonly kubeconfig: string
  /** Runs kubectl as the cluster's administrator; `input` goes to its standard input. */
  kubectl(args: readonly string[], input?: string): Promise<string>
  /** Runs kubectl with a bearer token and no other credential. Rejects with what kubectl printed. */
  kubectlAs(token: string, args: readonly string[]): Promise<string>
  /** The service account, and a pod of it that is bound to a node. */
  createPod(namespace: string, serviceAccount: string, pod: string): Promise<void>
  /** @returns a token as the kubelet would project it into the pod */
  podToken(namespace: string, serviceAccount: string, pod: string, audience: string): Promise<string>
  /** The AuthenticationConfiguration that it reads. */
  readonly configFile: string
  /** Puts another AuthenticationConfiguration in the place of the present one, by rename. */
  reconfigure(yaml: string): void
  /** What the apiserver has logged so far. */
  log(): string
  stop(): Promise<void>
}

export async function startKubeApiserver(
  authenticationConfiguration: string,
  key: ServiceAccountKey,
): Promise<KubeApiserver> {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-apiserver-'))
  const configFile = join(folder, 'authentication.yaml')
  writeFileSync(configFile, authenticationConfiguration)
  writeFileSync(join(folder, 'sa.key'), key.pem, { mode: 0o600 })
  const program = await startLineProgram(resolve('build/go/cluster'), [
    '--dir',
    join(folder, 'cluster'),
    '--authentication-config',
    configFile,
    '--service-account-issuer',
    SERVICE_ACCOUNT_ISSUER,
    '--service-account-key',
    join(folder, 'sa.key'),
  ])
  const { server, certificateAuthority, kubeconfig, log } = program.ready as Record<string, string>

  const kubectl = (args: readonly string[], input?: string) =>
    run(['--kubeconfig', kubeconfig as string, ...args], input)
  return {
    server: server as string,
    ca: readFileSync(certificateAuthority as string, 'utf8'),
    kubeconfig: kubeconfig as string,
    kubectl,
    kubectlAs: (token, args) =>
      // An absent kubeconfig, so that no other credential can be used by mistake.
      run([
        '--kubeconfig',
        '/dev/null',
        '--server',
        server as string,
        '--certificate-authority',
        certificateAuthority as string,
        '--token',
        token,
        ...args,
      ]),
    async createPod(namespace, serviceAccount, pod) {
      if (namespace !== 'default') await kubectl(['create', 'namespace', namespace]).catch(() => '')
      await kubectl(
        ['create', '-f', '-'],
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'List',
          items: [
            { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: serviceAccount, namespace } },
            { apiVersion: 'v1', kind: 'Node', metadata: { name: `node-of-${pod}` } },
          ],
        }),
      )
      const spec = {
        serviceAccountName: serviceAccount,
        nodeName: `node-of-${pod}`,
        containers: [{ name: 'main', image: 'none' }],
      }
      await kubectl(
        ['create', '-f', '-'],
        JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: pod, namespace }, spec }),
      )
    },
    async podToken(namespace, serviceAccount, pod, audience) {
      const uid = await kubectl(['-n', namespace, 'get', 'pod', pod, '-o', 'jsonpath={.metadata.uid}'])
      const bound = ['--bound-object-kind', 'Pod', '--bound-object-name', pod, '--bound-object-uid', uid]
      const token = await kubectl([
        '-n',
        namespace,
        'create',
        'token',
        serviceAccount,
        '--audience',
        audience,
        ...bound,
      ])
      return token.trim()
    },
    configFile,
    reconfigure(yaml) {
      writeFileSync(`${configFile}.new`, yaml)
      renameSync(`${configFile}.new`, configFile)
    },
    log: () => readFileSync(log as string, 'utf8'),
    async stop() {
      await program.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function run(args: readonly string[], input?: string): Promise<string> {
  return new Promise((done, failed) => {
    const child = execFile(resolve('build/go/kubectl'), args, (error, stdout, stderr) =>
      error ? failed(new Error(stderr || error.message)) : done(stdout),
    )
    // A kubectl that fails early does not read what it is given.
    child.stdin?.on('error', () => {}).end(input ?? '')
  })
}
