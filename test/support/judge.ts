/** The real relying parties, as programs that judge tokens. See test/judge/README.md. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type LineProgram, startLineProgram } from './lines.ts'
import type { TestIssuer } from './test_issuer.ts'

/** Minors of kube-apiserver whose authenticator is built. */
export const KUBERNETES_MINORS = ['1.37', '1.36', '1.35'] as const
export type KubernetesMinor = (typeof KUBERNETES_MINORS)[number]

const NEWEST = KUBERNETES_MINORS[0]
const program = (minor: KubernetesMinor) => resolve(`build/go/judge-${minor}`)

/** @param yaml an AuthenticationConfiguration; it is written below `folder` */
export function startKubeJudge(minor: KubernetesMinor, yaml: string, folder: string): Promise<LineProgram> {
  const file = join(folder, `authentication-${minor}.yaml`)
  writeFileSync(file, yaml)
  return startLineProgram(program(minor), ['kube', '--authentication-config', file])
}

export function startSpiffeJudge(
  { url, caFile }: Pick<TestIssuer, 'url' | 'caFile'>,
  trustDomain: string,
  audience: string,
): Promise<LineProgram> {
  const args = ['spiffe', '--issuer', url, '--ca', caFile, '--trust-domain', trustDomain, '--audience', audience]
  return startLineProgram(program(NEWEST), args)
}

/** @returns what judges by a bundle that is fetched from `url`, whose server's certificate chains to `caFile` */
export function startFederationJudge(
  { url, caFile }: Pick<TestIssuer, 'url' | 'caFile'>,
  trustDomain: string,
  audience: string,
): Promise<LineProgram> {
  const args = ['federation', '--issuer', url, '--ca', caFile, '--trust-domain', trustDomain, '--audience', audience]
  return startLineProgram(program(NEWEST), args)
}

/** @param folder with `svid.pem`, `key.pem` and `bundles/<trust domain>.pem` */
export function startMtlsWorkload(folder: string): Promise<LineProgram> {
  return startLineProgram(program(NEWEST), ['mtls', '--folder', folder])
}

export function startOidcJudge(
  { url, caFile }: Pick<TestIssuer, 'url' | 'caFile'>,
  audience: string,
): Promise<LineProgram> {
  return startLineProgram(program(NEWEST), ['oidc', '--issuer', url, '--ca', caFile, '--audience', audience])
}

/** go-spiffe, for chains of certificates: test/judge/README.md has what it is asked. */
export function startX509Judge(): Promise<LineProgram> {
  return startLineProgram(program(NEWEST), ['x509'])
}

/** What kube-apiserver's own loader and validation say of each file. */
export function validateAuthenticationConfigurations(
  minor: KubernetesMinor,
  files: readonly string[],
): { file: string; ok: boolean; error?: string }[] {
  const output = execFileSync(program(minor), ['validate', ...files], { encoding: 'utf8' })
  const lines = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  return lines.filter((line) => 'file' in line)
}

/** The least that makes an apiserver trust an issuer, without any of our rules. */
export function bareAuthenticationConfiguration({ url, ca }: Pick<TestIssuer, 'url' | 'ca'>, audience: string): string {
  return JSON.stringify({
    apiVersion: 'apiserver.config.k8s.io/v1beta1',
    kind: 'AuthenticationConfiguration',
    jwt: [
      {
        issuer: { url, certificateAuthority: ca, audiences: [audience] },
        claimMappings: { username: { claim: 'sub', prefix: '' } },
      },
    ],
  })
}
