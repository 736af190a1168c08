import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { file_workloadapi, SpiffeWorkloadAPI } from '../../cli/workload_api/workloadapi_pb.ts'
import { FOLDER, generate } from '../../scripts/proto.ts'

test('the generated code is that of the .proto', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-proto-'))
  try {
    generate(folder)
    const made = readFileSync(join(folder, 'workloadapi_pb.ts'), 'utf8')
    expect(readFileSync(`${FOLDER}/workloadapi_pb.ts`, 'utf8'), 'run `npm run proto`').toBe(made)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('WA-1, WA-13: the service has no package, and these methods', () => {
  expect(SpiffeWorkloadAPI.typeName).toBe('SpiffeWorkloadAPI')
  expect(SpiffeWorkloadAPI.methods.map(({ name, methodKind }) => [name, methodKind])).toEqual([
    ['FetchX509SVID', 'server_streaming'],
    ['FetchX509Bundles', 'server_streaming'],
    ['FetchJWTSVID', 'unary'],
    ['FetchJWTBundles', 'server_streaming'],
    ['ValidateJWTSVID', 'unary'],
  ])
})

test('WA-12: every field has its number', () => {
  const numbers = file_workloadapi.messages
    .filter(({ fields }) => fields.length > 0)
    .map(({ name, fields }) => [name, Object.fromEntries(fields.map((field) => [field.name, field.number]))])
  expect(Object.fromEntries(numbers)).toEqual({
    X509SVIDResponse: { svids: 1, crl: 2, federated_bundles: 3 },
    X509SVID: { spiffe_id: 1, x509_svid: 2, x509_svid_key: 3, bundle: 4, hint: 5 },
    X509BundlesResponse: { crl: 1, bundles: 2 },
    JWTSVIDRequest: { audience: 1, spiffe_id: 2 },
    JWTSVIDResponse: { svids: 1 },
    JWTSVID: { spiffe_id: 1, svid: 2, hint: 3 },
    JWTBundlesResponse: { bundles: 1 },
    ValidateJWTSVIDRequest: { audience: 1, svid: 2 },
    ValidateJWTSVIDResponse: { spiffe_id: 1, claims: 2 },
  })
})
