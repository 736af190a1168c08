/**
 * What an X.509-SVID costs without a door in front of it. Each request does one of these things as often as it says, and
 * answers with how often that was.
 */

import '@abraham/reflection'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { ALGORITHMS } from '../../keys/algorithms.ts'
import { readCsr } from '../../keys/csr.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { SpiffeId, TrustDomain } from '../../worker/spiffe/id.ts'
import { openAuthority, selfSignAuthority, signX509Svid } from '../../worker/spiffe/x509_svid.ts'

const { key: P256, signature: ECDSA_SHA256 } = ALGORITHMS.ES256
/** More than one, so that nothing on the way could profit from seeing the same request again. */
const REQUESTS = 32
const HOUR = 3600

type Prepared = Awaited<ReturnType<typeof prepare>>
let prepared: Promise<Prepared> | null = null

async function prepare() {
  const now = Math.floor(Date.now() / 1000)
  const { publicJwk, privateJwk } = await generateLocalKey('ES256')
  const signer = await localSigner(publicJwk, privateJwk)
  const trustDomain = TrustDomain.parse('example.org')
  const terms = { trustDomain, notBefore: now, notAfter: now + 24 * HOUR }
  const authority = await openAuthority(await selfSignAuthority(signer, terms), signer)
  const requests: { der: Uint8Array<ArrayBuffer>; key: CryptoKey; signature: ArrayBuffer; signed: Uint8Array }[] = []
  while (requests.length < REQUESTS) {
    const keys = (await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])) as CryptoKeyPair
    const csr = await Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: { ...P256, hash: 'SHA-256' } })
    // As long as what is signed in a request and in a certificate.
    const signed = crypto.getRandomValues(new Uint8Array(400))
    const signature = await crypto.subtle.sign(ECDSA_SHA256, keys.privateKey, signed)
    requests.push({ der: new Uint8Array(csr.rawData), key: keys.publicKey, signature, signed })
  }
  const signingKey = await crypto.subtle.importKey('jwk', privateJwk, P256, false, ['sign'])
  return { now, authority, requests, signingKey, issuer: new X509Certificate(authority.certificate).subjectName }
}

const spiffeId = SpiffeId.parse('spiffe://example.org/ns/shop/sa/cart')
const dnsNames = ['cart.shop.svc']

type Work = (prepared: Prepared, request: Prepared['requests'][number]) => Promise<unknown>

const WORKS: Readonly<Record<string, Work>> = {
  /** The least: one signature is verified and one made, with keys that are there. */
  async bare({ signingKey }, { key, signature, signed }) {
    if (!(await crypto.subtle.verify(ECDSA_SHA256, key, signature, signed))) throw new Error('not verified')
    await crypto.subtle.sign(ECDSA_SHA256, signingKey, signed)
  },
  async request(_, { der }) {
    await readCsr(der)
  },
  async product({ authority, now }, { der }) {
    const publicKey = await readCsr(der)
    await signX509Svid({ spiffeId, dnsNames, publicKey, notBefore: now - 10, notAfter: now + HOUR }, authority)
  },
  /** The same certificate but for the key identifiers, by the library's own writer. */
  async library({ issuer, signingKey, now }, { der }) {
    const csr = new Pkcs10CertificateRequest(der)
    if (!(await csr.verify())) throw new Error('not verified')
    await X509CertificateGenerator.create({
      subject: 'O=spiffe-edge',
      issuer,
      notBefore: new Date(1000 * (now - 10)),
      notAfter: new Date(1000 * (now + HOUR)),
      publicKey: csr.publicKey,
      signingKey,
      signingAlgorithm: { ...P256, hash: 'SHA-256' },
      extensions: [
        new SubjectAlternativeNameExtension([
          { type: 'url', value: spiffeId.toString() },
          ...dnsNames.map((value) => ({ type: 'dns' as const, value })),
        ]),
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      ],
    })
  },
}

export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url)
    const work = WORKS[pathname.slice(1)]
    if (!work) return new Response(null, { status: 404 })
    prepared ??= prepare()
    const ready = await prepared
    const times = Number(searchParams.get('times'))
    for (let i = 0; i < times; i++) await work(ready, ready.requests[i % REQUESTS] as Prepared['requests'][number])
    return new Response(String(times))
  },
} satisfies ExportedHandler
