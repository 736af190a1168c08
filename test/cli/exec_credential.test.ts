import { expect, test } from 'vitest'
import { execCredential, readExecInfo } from '../../cli/exec_credential.ts'
import { Failure, UsageError } from '../../cli/failure.ts'

const V1 = 'client.authentication.k8s.io/v1'
const NOW = 1_795_353_765

function read(info: unknown, env: Record<string, string> = {}) {
  const text = typeof info === 'string' ? info : JSON.stringify(info)
  return readExecInfo({ env: { KUBERNETES_EXEC_INFO: text, ...env }, interactive: () => true })
}

test.each(['v1', 'v1beta1'])('EX-1: the answer is of the version that was asked for: %s', (version) => {
  const apiVersion = `client.authentication.k8s.io/${version}`
  const info = read({ apiVersion, kind: 'ExecCredential', spec: {} }, { EXEC_CREDENTIAL_VERSION: 'v1beta1' })
  const answer = JSON.parse(execCredential(info, { token: 't', expiresAt: NOW + 300 }, NOW))
  expect(answer).toEqual({
    apiVersion,
    kind: 'ExecCredential',
    spec: { interactive: false },
    // EX-9: ten seconds before the token's own.
    status: { token: 't', expirationTimestamp: new Date((NOW + 290) * 1000).toISOString().replace('.000', '') },
  })
})

test.each([
  ['v1alpha1', { apiVersion: 'client.authentication.k8s.io/v1alpha1', kind: 'ExecCredential' }],
  ['another group', { apiVersion: 'example.org/v1', kind: 'ExecCredential' }],
  ['another kind', { apiVersion: V1, kind: 'TokenReview' }],
  ['no version', { kind: 'ExecCredential' }],
  ['a list', []],
  ['no JSON', '{'],
  ['two kinds', `{"apiVersion":"${V1}","kind":"ExecCredential","kind":"x"}`],
])('§12.8: KUBERNETES_EXEC_INFO with %s is refused', (_, info) => {
  expect(() => read(info)).toThrow(UsageError)
})

test('EX-2, EX-5: whether there is somebody, and what the cluster has as extension', () => {
  const cluster = { server: 'https://x', config: { audience: 'k8s-one' } }
  expect(read({ apiVersion: V1, kind: 'ExecCredential', spec: { interactive: true, cluster } })).toEqual({
    apiVersion: V1,
    interactive: true,
    config: { audience: 'k8s-one' },
  })
  for (const spec of [{}, null, 'x', { interactive: 'true' }, { interactive: 1, cluster: [] }])
    expect(read({ apiVersion: V1, kind: 'ExecCredential', spec })).toMatchObject({ interactive: false, config: null })
})

test('without KUBERNETES_EXEC_INFO the version is EXEC_CREDENTIAL_VERSION, and v1 without that', () => {
  const by = (env: Record<string, string>) => readExecInfo({ env, interactive: () => true })
  expect(by({})).toEqual({ apiVersion: V1, interactive: true, config: null })
  expect(by({ EXEC_CREDENTIAL_VERSION: 'v1beta1' }).apiVersion).toBe('client.authentication.k8s.io/v1beta1')
  expect(() => by({ EXEC_CREDENTIAL_VERSION: 'v1alpha1' })).toThrow(UsageError)
  expect(() => by({ EXEC_CREDENTIAL_VERSION: V1 })).toThrow(UsageError)
})

test.each([
  [30, 20],
  [20, 10],
  [8, 4],
  [1, 1],
])('EX-9: a token that expires in %d s is said to expire in %d s, which is not over yet', (left, said) => {
  const info = readExecInfo({ env: {}, interactive: () => false })
  const { status } = JSON.parse(execCredential(info, { token: 't', expiresAt: NOW + left }, NOW))
  expect(Date.parse(status.expirationTimestamp) / 1000 - NOW).toBe(said)
})

test.each([0, -1, -3600])('§12.8: a token that expires in %d s is never shown', (left) => {
  const info = readExecInfo({ env: {}, interactive: () => false })
  expect(() => execCredential(info, { token: 't', expiresAt: NOW + left }, NOW)).toThrow(Failure)
})
