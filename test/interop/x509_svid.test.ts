/**
 * X.509-SVIDs before those who will read them: OpenSSL at its strictest, and go-spiffe. Our own judge stands beside go-spiffe
 * over everything that can be wrong with a chain: nothing that it refuses is taken by ours, and where ours is stricter, the
 * reason is in test/support/x509_chains.ts.
 */

import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { readCsr } from '../../keys/csr.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { SpiffeId, TrustDomain } from '../../worker/spiffe/id.ts'
import { openAuthority, selfSignAuthority, signX509Svid } from '../../worker/spiffe/x509_svid.ts'
import { validateX509Svid, X509SvidError, type X509SvidErrorCode } from '../../worker/spiffe/x509_validation.ts'
import { startX509Judge } from '../support/judge.ts'
import type { LineProgram } from '../support/lines.ts'
import { missing } from '../support/tools.ts'
import { type ChainCase, makeChainCases, WORKLOAD } from '../support/x509_chains.ts'

type Der = Uint8Array<ArrayBuffer>
type Chain = Pick<ChainCase, 'chain' | 'bundles' | 'now'>

const AUTHORITIES = ['ES256', 'ES384', 'ES512', 'RS256', 'RS384', 'RS512'] as const
const LEAF_KEYS = {
  'P-256': ALGORITHMS.ES256.key,
  'P-384': ALGORITHMS.ES384.key,
  'P-521': ALGORITHMS.ES512.key,
  'RSA-2048': ALGORITHMS.RS256.key,
} as const
const NOW = Math.floor(Date.now() / 1000)
const TRUST_DOMAIN = TrustDomain.parse('example.org')

async function issue(alg: AlgorithmName, kind: keyof typeof LEAF_KEYS): Promise<{ authority: Der; svid: Der }> {
  const { publicJwk, privateJwk } = await generateLocalKey(alg)
  const signer = await localSigner(publicJwk, privateJwk)
  const terms = { trustDomain: TRUST_DOMAIN, notBefore: NOW - 10, notAfter: NOW + 86_400 }
  const certificate = await selfSignAuthority(signer, terms)
  const pair = (await crypto.subtle.generateKey(LEAF_KEYS[kind], true, ['sign', 'verify'])) as CryptoKeyPair
  const svid = await signX509Svid(
    {
      spiffeId: SpiffeId.parse(WORKLOAD),
      dnsNames: ['cart.shop.svc', 'cart'],
      publicKey: (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer,
      notBefore: NOW - 10,
      notAfter: NOW + 3600,
    },
    await openAuthority(certificate, signer),
  )
  return { authority: certificate, svid }
}

const PAIRS = [
  ...AUTHORITIES.map((alg) => [alg, 'P-256'] as const),
  ...Object.keys(LEAF_KEYS).map((kind) => ['ES256', kind as keyof typeof LEAF_KEYS] as const),
]

describe.skipIf(missing('openssl'))('OpenSSL', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-x509-'))
  const EXTENSIONS = 'subjectAltName,basicConstraints,keyUsage,extendedKeyUsage'
  const [ca, leaf] = [join(folder, 'ca.pem'), join(folder, 'leaf.pem')]
  const openssl = (...args: string[]) => execFileSync('openssl', args, { encoding: 'utf8', stdio: 'pipe' })
  const write = ({ authority, svid }: { authority: Der; svid: Der }) => {
    writeFileSync(ca, new X509Certificate(authority).toString())
    writeFileSync(leaf, new X509Certificate(svid).toString())
  }
  afterAll(() => rmSync(folder, { recursive: true }))

  test.each(PAIRS)('XS-9, XS-15: -x509_strict takes what %s signs for a key of %s, at both ends', async (alg, kind) => {
    write(await issue(alg, kind))
    for (const purpose of ['sslclient', 'sslserver'])
      expect(openssl('verify', '-x509_strict', '-check_ss_sig', '-purpose', purpose, '-CAfile', ca, leaf)).toBe(
        `${leaf}: OK\n`,
      )
    expect(openssl('verify', '-x509_strict', '-check_ss_sig', '-CAfile', ca, ca)).toBe(`${ca}: OK\n`)
  })

  test.each([
    ['ec', 'ec_paramgen_curve:P-256'],
    ['ec', 'ec_paramgen_curve:P-384'],
    ['ec', 'ec_paramgen_curve:P-521'],
    ['rsa', 'rsa_keygen_bits:2048'],
    ['rsa', 'rsa_keygen_bits:4096'],
  ])('T-22: of its requests for %s with %s the key is taken, whatever else is in them', async (kind, option) => {
    const [key, request, config] = ['key.pem', 'request.der', 'request.cnf'].map((name) => join(folder, name))
    writeFileSync(
      config as string,
      'distinguished_name=dn\n[dn]\n[attributes]\nchallengePassword=secret\n[extensions]\nsubjectAltName=DNS:evil.example,URI:spiffe://example.org/admin\nbasicConstraints=CA:TRUE\n',
    )
    const wanted = ['-newkey', kind, '-pkeyopt', option, '-nodes', '-keyout', key as string]
    const more = ['-subj', '/CN=admin/O=system:masters', '-reqexts', 'extensions', '-config', config as string]
    openssl('req', '-new', ...wanted, ...more, '-outform', 'DER', '-out', request as string)
    const spki = execFileSync('openssl', ['pkey', '-in', key as string, '-pubout', '-outform', 'DER'])
    expect(Buffer.from(await readCsr(new Uint8Array(readFileSync(request as string))))).toEqual(spki)
  })

  test('XS-1 to XS-7: it reads them as they are meant', async () => {
    write(await issue('ES256', 'P-256'))
    const read = (file: string) =>
      openssl('x509', '-in', file, '-noout', '-subject', '-nameopt', 'RFC2253', '-ext', EXTENSIONS)
        .split('\n')
        .map((line) => line.trim())
    expect(read(leaf)).toEqual([
      'subject=O=spiffe-edge',
      'X509v3 Subject Alternative Name:',
      `URI:${WORKLOAD}, DNS:cart.shop.svc, DNS:cart`,
      'X509v3 Basic Constraints: critical',
      'CA:FALSE',
      'X509v3 Key Usage: critical',
      'Digital Signature',
      'X509v3 Extended Key Usage:',
      'TLS Web Server Authentication, TLS Web Client Authentication',
      '',
    ])
    expect(read(ca)).toEqual([
      expect.stringMatching(/^subject=serialNumber=[0-9a-f]{32},O=spiffe-edge$/),
      'X509v3 Subject Alternative Name:',
      'URI:spiffe://example.org',
      'X509v3 Basic Constraints: critical',
      'CA:TRUE, pathlen:0',
      'X509v3 Key Usage: critical',
      'Certificate Sign',
      '',
    ])
  })
})

describe.skipIf(missing('go'))('go-spiffe', async () => {
  const cases = await makeChainCases()
  let judge: LineProgram
  beforeAll(async () => {
    judge = await startX509Judge()
  })
  afterAll(() => judge.stop())

  const encode = (certificates: readonly Der[]) => certificates.map((der) => Buffer.from(der).toString('base64'))

  /** @returns the SPIFFE ID, or null */
  async function askGoSpiffe({ chain, bundles, now }: Chain): Promise<string | null> {
    const byName = [...bundles].map(([name, authorities]) => [name, encode(authorities)])
    const question = JSON.stringify({ chain: encode(chain), bundles: Object.fromEntries(byName), now })
    const [answer] = await judge.ask([question])
    return answer?.ok ? (answer.id as string) : null
  }

  async function askOurs({
    chain,
    bundles,
    now,
  }: Chain): Promise<{ id: string | null; code: X509SvidErrorCode | null }> {
    try {
      return { id: (await validateX509Svid(chain, bundles, now)).spiffeId.toString(), code: null }
    } catch (error) {
      if (error instanceof X509SvidError) return { id: null, code: error.code }
      throw error
    }
  }

  test.each(PAIRS)('takes what %s signs for a key of %s', async (alg, kind) => {
    const { authority, svid } = await issue(alg, kind)
    const question = { chain: [svid], bundles: new Map([['example.org', [authority]]]), now: NOW }
    expect(await askGoSpiffe(question)).toBe(WORKLOAD)
    expect((await askOurs(question)).id).toBe(WORKLOAD)
  })

  test.each(cases.filter(({ code }) => code === null))('takes, as we do, $name', async (chainCase) => {
    expect(await askGoSpiffe(chainCase)).toBe(WORKLOAD)
  })

  test.each(cases.filter(({ code, goSpiffeTakes }) => code !== null && !goSpiffeTakes))(
    '12.3: refuses, as we do, $name',
    async (chainCase) => {
      expect(await askGoSpiffe(chainCase)).toBeNull()
    },
  )

  test.each(cases.filter(({ goSpiffeTakes }) => goSpiffeTakes))(
    'takes $name, as we do not: $goSpiffeTakes',
    async (chainCase) => {
      expect(await askGoSpiffe(chainCase)).not.toBeNull()
    },
  )

  describe('its own test certificates', () => {
    const folder = execFileSync('go', ['list', '-m', '-f', '{{.Dir}}', 'github.com/spiffe/go-spiffe/v2'], {
      cwd: 'test/judge',
      encoding: 'utf8',
    }).trim()
    const testdata = join(folder, 'svid/x509svid/testdata')
    const read = (file: string): Der[] =>
      [...readFileSync(join(testdata, file), 'utf8').matchAll(/-----BEGIN CERTIFICATE-----([^-]*)-----END/g)].map(
        ([, base64]) => new Uint8Array(Buffer.from(base64 as string, 'base64')),
      )
    const files = readdirSync(testdata).filter((file) => file.endsWith('.pem') && read(file).length > 0)

    /** There are no roots in the folder. The last certificate of each file stands in for one, or this: it has signed leaves. */
    const [, intermediate] = read('good-leaf-and-intermediate.pem')
    /** Of a certificate that is none. */
    const SOME_TIME = 1_585_000_000

    const VERDICTS: Record<string, X509SvidErrorCode | null> = {
      'corrupt-cert.pem': 'malformed',
      'good-cert-and-key.pem': 'signature',
      'good-key-and-cert.pem': 'signature',
      'good-leaf-and-intermediate.pem': null,
      'good-leaf-only.pem': 'issuer_unknown',
      'wrong-intermediate-no-ca.pem': 'issuer_not_ca',
      'wrong-intermediate-no-key-cert-sign.pem': 'issuer_key_usage',
      'wrong-leaf-ca-true.pem': 'leaf_is_ca',
      'wrong-leaf-cert-sign.pem': 'leaf_signs',
      'wrong-leaf-crl-sign.pem': 'leaf_signs',
      'wrong-leaf-empty-id.pem': 'no_uri_san',
      'wrong-leaf-no-digital-signature.pem': 'leaf_signs',
    }

    test('are all here', () => {
      expect(files).toEqual(Object.keys(VERDICTS))
    })

    test.each(Object.entries(VERDICTS))('%s: %s, and it says yes or no as we do', async (file, code) => {
      const [leaf, authority = intermediate] = read(file) as [Der, Der | undefined]
      const bundles = new Map([['example.org', [authority as Der]]])
      const question = { chain: [leaf], bundles, now: (validFrom(leaf) ?? SOME_TIME) + 1 }
      const ours = await askOurs(question)
      expect(ours.code).toBe(code)
      expect(await askGoSpiffe(question)).toBe(ours.id)
    })

    function validFrom(der: Der): number | null {
      try {
        return new X509Certificate(der).validFromDate.getTime() / 1000
      } catch {
        return null
      }
    }
  })
})
