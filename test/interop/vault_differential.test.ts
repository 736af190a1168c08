/**
 * The same mounts, roles, tokens and requests at a whole Vault with its Kubernetes auth plugin, and here: the same status and
 * the same text, or a difference that docs/vault.md lists with its reason. Both ask one API server, which is a fake that
 * believes any token; what a real one says of them, vault.test.ts shows.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cli, Folder } from '../support/cli.ts'
import { FakeCluster, POD, type TokenChange } from '../support/cluster.ts'
import { FakeApiServer } from '../support/kube_api.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest } from '../support/policy.ts'
import { serveOverTls, type TlsService } from '../support/tls_service.ts'
import { makeTokenKey, type TokenKey } from '../support/tokens.ts'
import { missing } from '../support/tools.ts'
import { startVaultCore, type VaultCore } from '../support/vault_peers.ts'

/** The same cases in every run, so that a difference that is found is found again. */
const SEED = 20_261_123
const ROLES = 220
const CONFIGS = 60

interface Said {
  readonly status: number
  readonly error: string | null
  readonly warnings: readonly string[]
  readonly data: Record<string, unknown> | null
  readonly auth: Record<string, unknown> | null
}

interface Case {
  /** What is asked, for the report. */
  readonly title: string
  readonly body?: Readonly<Record<string, unknown>> | undefined
  readonly token?: TokenChange | undefined
}

/** A row of the table in docs/vault.md, by its first column. */
interface Difference {
  readonly row: string
  explains(one: Case, vault: Said, ours: Said): boolean
}

const OK = (said: Said) => said.status < 300
const ENDS = 'The token ends with the service account token that it is for'
const LOGIN = /^login/
const CONVERSION = /error converting input for field/
const claims = ({ token }: Case) => (token?.claims ?? {}) as Record<string, unknown>
const several = (one: Case) => Array.isArray(claims(one).aud) && (claims(one).aud as unknown[]).length > 1
const denied = ({ status, error }: Said) => status === 403 && error === 'permission denied'

const DIFFERENCES: readonly Difference[] = [
  {
    row: "a token's signature",
    explains: (one, _, ours) => denied(ours) && (one.token?.key !== undefined || 'kid' in Object(one.token?.header)),
  },
  { row: '`alg` of the token', explains: (one, _, ours) => denied(ours) && 'alg' in Object(one.token?.header) },
  {
    row: 'several audiences in a token',
    explains: (one, vault, ours) =>
      several(one) && /audience/.test(ours.error ?? '') && !/audience/.test(vault.error ?? ''),
  },
  {
    row: 'role without `audience`',
    explains: (one, vault, ours) =>
      /no-audience/.test(one.title) && OK(vault) && (/audience/.test(ours.error ?? '') || 'aud' in claims(one)),
  },
  {
    row: 'tokens that were made to live long',
    explains: (one, vault, ours) => denied(ours) && OK(vault) && Number(claims(one).exp) - now() > 7200,
  },
  {
    row: 'legacy tokens, tokens without `exp`',
    explains: (one, _, ours) => denied(ours) && ['exp', 'iat', 'nbf'].some((name) => name in claims(one)),
  },
  {
    row: 'tokens that are bound to no pod',
    explains: (one, _, ours) => denied(ours) && 'pod' in Object(one.token?.kubernetes),
  },
  {
    row: 'clock leeway',
    explains: (one, vault, ours) =>
      !/\((?:exp|nbf|iat)\)/.test(vault.error ?? '') &&
      /\((?:exp|nbf|iat)\)/.test(ours.error ?? '') &&
      ['exp', 'iat', 'nbf'].some((name) => name in claims(one)),
  },
  {
    row: 'claims that no kube-apiserver writes',
    explains: (one, vault, ours) =>
      LOGIN.test(one.title) &&
      vault.status >= 403 &&
      ours.status >= 403 &&
      (denied(ours) || 'serviceaccount' in Object(one.token?.kubernetes)),
  },
  {
    row: '`disable_iss_validation=false` without `issuer`',
    explains: (one, vault, ours) =>
      /iss-default/.test(one.title) && OK(vault) && ours.error === 'invalid issuer (iss) claim',
  },
  {
    row: "the token's end",
    explains: (one, vault, ours) =>
      OK(vault) && OK(ours) && (/^no-ttl/.test(one.title) || ours.warnings.includes(ENDS)),
  },
  {
    row: '`token_policies`',
    explains: (_, vault, ours) => OK(vault) && /root is not given/.test(ours.error ?? ''),
  },
  {
    row: '`token_type: batch` with a number of uses or period by a former name',
    explains: ({ body }, vault, ours) =>
      OK(vault) && body?.token_type === 'batch' && ('period' in body || 'num_uses' in body) && ours.status === 400,
  },
  {
    row: 'negative `num_uses` by its former name',
    explains: ({ body }, _, ours) => Number(body?.num_uses) < 0 && ours.error === "'token_num_uses' cannot be negative",
  },
  {
    row: 'addresses of UNIX sockets and ports in CIDRs',
    explains: ({ body }, vault, ours) =>
      vault.status <= 400 && /:80|^\//.test(String(body?.token_bound_cidrs)) && /address/.test(ours.error ?? ''),
  },
  {
    row: 'a namespace selector without labels, or with other members',
    explains: ({ body }, vault, ours) =>
      OK(vault) &&
      body !== undefined &&
      'bound_service_account_namespace_selector' in body &&
      /selector/.test(ours.error ?? ''),
  },
  {
    row: 'names and audiences that no service account has',
    explains: (_, vault, ours) =>
      OK(vault) && ours.status === 400 && /spec\.(?:bound|audience|token)/.test(ours.error ?? ''),
  },
  {
    row: 'which of several wrong parameters is named, and how much of it is repeated',
    explains: (_, vault, ours) =>
      vault.status === 400 &&
      ours.status === 400 &&
      CONVERSION.test(vault.error ?? '') &&
      CONVERSION.test(ours.error ?? ''),
  },
  {
    row: 'an `audience` of blanks',
    explains: (one, vault, ours) => /read after/.test(one.title) && vault.data?.audience === '  ' && OK(ours),
  },
  {
    row: 'the issuer of a token',
    explains: (one, vault, ours) => 'iss' in claims(one) && OK(vault) && denied(ours),
  },
  {
    row: 'num_uses of a renewal',
    explains: (one, vault, ours) => /renew-self/.test(one.title) && vault.auth?.num_uses !== ours.auth?.num_uses,
  },
  {
    row: '`kubernetes_host`',
    explains: (_, vault, ours) => OK(vault) && /^kubernetes_host is not/.test(ours.error ?? ''),
  },
  {
    row: '`kubernetes_ca_cert`',
    explains: (one, vault, ours) =>
      /^config/.test(one.title) && OK(ours) && /ca\.crt: no such file/.test(vault.error ?? ''),
  },
  {
    row: '`pem_keys`',
    explains: (one, vault, ours) =>
      /^config/.test(one.title) && /malformed|asn1|x509/.test(vault.error ?? '') && ours.status === 400,
  },
  {
    row: '`use_annotations_as_alias_metadata`',
    explains: (_, vault, ours) => OK(vault) && /^use_annotations_as_alias_metadata/.test(ours.error ?? ''),
  },
  {
    row: 'a token that holds no more',
    explains: (_, vault, ours) => denied(ours) && /permission denied[\s\S]*invalid token/.test(vault.error ?? ''),
  },
  { row: 'num_uses, last use', explains: (_, vault, ours) => vault.data?.num_uses === -1 && ours.data?.num_uses === 0 },
  {
    row: 'tokens without the policy `default`',
    explains: (one, vault) => /^no-default/.test(one.title) && vault.status === 403,
  },
]

/** What we warn of beyond Vault. Where there is such a warning, the answer is a 200 in the place of a 204. */
const OUR_WARNINGS =
  /^(?:Tokens of role .* end with|kubernetes_ca_cert is kept|Cluster .* has no connection|issuer is not set|A role without audience|Endpoint ignored|.* can select the same pod)/

const now = () => Math.floor(Date.now() / 1000)

describe.skipIf(missing('go'))('a whole Vault, and this', () => {
  const folder = new Folder()
  const state = mkdtempSync(join(tmpdir(), 'spiffe-edge-state-'))
  let cluster: FakeCluster
  let other: TokenKey
  let fake: FakeApiServer
  let api: TlsService
  let vault: VaultCore
  let worker: PlainWorkerd
  let issuer: string
  const admin = { token: '', at: 0 }
  const used = new Set<string>()
  const unexplained: string[] = []
  let compared = 0

  beforeAll(async () => {
    ;[cluster, other] = await Promise.all([FakeCluster.create('production'), makeTokenKey('ES256')])
    fake = new FakeApiServer(cluster)
    fake.objects.set(`/api/v1/namespaces/${POD.namespace}`, { metadata: { labels: { team: 'payments' } } })
    api = await serveOverTls(fake)
    const port = await freePort()
    issuer = `http://127.0.0.1:${port}`
    const create = ['admin', 'create', '--name', 'alice', '--issuer', issuer, '--key-file', `${folder.path}/key`]
    const record = cluster.record({ connection: { url: api.url, binding: 'CLUSTER_FAKE' } })
    worker = await startPlainWorkerd({
      entry: 'development',
      env: {
        MODE: 'development',
        ISSUER: issuer,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: 'local:one',
        VAULT_TOKEN_KEY: Buffer.alloc(32, 7).toString('base64'),
      },
      manifest: `${(await cli(create)).stdout}\n${manifest(record)}`,
      clusters: { CLUSTER_FAKE: { address: new URL(api.url).host, ca: api.ca } },
      port,
      state,
    })
    vault = await startVaultCore()
  })
  afterAll(async () => {
    api?.stop()
    await worker?.stop()
    await vault?.stop()
    rmSync(state, { recursive: true })
    rmSync(folder.path, { recursive: true })
  })

  async function adminToken(): Promise<string> {
    if (now() - admin.at > 200) {
      admin.token = (
        await cli(['admin', 'token', '--issuer', issuer, '--key-file', `${folder.path}/key`])
      ).stdout.trim()
      admin.at = now()
    }
    return admin.token
  }

  async function call(base: string, method: string, path: string, token: string | null, body?: object): Promise<Said> {
    const headers = { 'content-type': 'application/json', ...(token !== null && { 'x-vault-token': token }) }
    const response = await fetch(`${base}/v1/${path}`, { method, headers, body: body ? JSON.stringify(body) : null })
    const text = await response.text()
    const answer = text === '' ? {} : JSON.parse(text)
    return {
      status: response.status === 200 && !answer.data && !answer.auth ? 204 : response.status,
      error: answer.errors ? (answer.errors[0] ?? '') : null,
      warnings: answer.warnings ?? [],
      data: answer.data ?? null,
      auth: answer.auth ?? null,
    }
  }

  /** @param tokens null for the administrators' own */
  async function both(
    method: string,
    path: string,
    body?: object,
    tokens?: readonly (string | null)[],
  ): Promise<readonly [Said, Said]> {
    const [theirs = null, ours = null] = tokens ?? [vault.rootToken, await adminToken()]
    return [await call(vault.address, method, path, theirs, body), await call(issuer, method, path, ours, body)]
  }

  /** Writes down what differs and is not in the list. */
  function compare(one: Case, [theirs, ours]: readonly [Said, Said], members?: readonly string[]): void {
    compared++
    const seen = (said: Said) => {
      const warnings = said.warnings.filter((text) => !OUR_WARNINGS.test(text))
      const values = said.data ?? said.auth
      const shown =
        values && Object.fromEntries(Object.entries(values).filter(([name]) => !members || members.includes(name)))
      return { status: said.status, error: said.error, warnings, shown }
    }
    const [left, right] = [seen(theirs), seen(ours)].map((said) => JSON.stringify(sorted(said)))
    if (left === right) return
    const difference = DIFFERENCES.find(({ explains }) => explains(one, theirs, ours))
    if (difference) used.add(difference.row)
    else
      unexplained.push(
        `${one.title} ${JSON.stringify(one.body ?? one.token ?? null)}\n  Vault ${left}\n  ours  ${right}`,
      )
  }

  async function mount(name: string, config: object = {}): Promise<void> {
    await both('POST', `sys/auth/${name}`, { type: 'kubernetes' })
    const usual = { kubernetes_host: api.url, kubernetes_ca_cert: api.ca, token_reviewer_jwt: 'reviewer' }
    const answers = await both('POST', `auth/${name}/config`, { ...usual, ...config })
    expect(answers.filter((said) => !OK(said))).toEqual([])
  }

  const CONFIG_MEMBERS = [
    'kubernetes_host',
    'kubernetes_ca_cert',
    'pem_keys',
    'issuer',
    'disable_iss_validation',
    'disable_local_ca_jwt',
    'token_reviewer_jwt_set',
    'use_annotations_as_alias_metadata',
  ]
  const ROLE_MEMBERS = [
    ...['bound_service_account_names', 'bound_service_account_namespaces', 'bound_service_account_namespace_selector'],
    ...[
      'audience',
      'alias_name_source',
      'token_ttl',
      'token_max_ttl',
      'token_explicit_max_ttl',
      'token_period',
      'token_policies',
    ],
    ...['token_bound_cidrs', 'token_no_default_policy', 'token_num_uses', 'token_type'],
    ...['policies', 'ttl', 'max_ttl', 'period', 'num_uses', 'bound_cidrs'],
  ]
  const AUTH_MEMBERS = [
    'policies',
    'token_policies',
    'metadata',
    'lease_duration',
    'renewable',
    'token_type',
    'orphan',
    'num_uses',
    'mfa_requirement',
  ]
  const LOOKUP_MEMBERS = [
    'policies',
    'path',
    'meta',
    'display_name',
    'num_uses',
    'orphan',
    'creation_ttl',
    'explicit_max_ttl',
    'type',
    'renewable',
    'period',
    'bound_cidrs',
  ]

  test(`${CONFIGS} configs`, async () => {
    await both('POST', 'sys/auth/configs', { type: 'kubernetes' })
    compare({ title: 'config read before any' }, await both('GET', 'auth/configs/config'))
    for (const body of fc.sample(configBody(api), { numRuns: CONFIGS, seed: SEED })) {
      compare({ title: 'config write', body }, await both('POST', 'auth/configs/config', body))
    }
    const usual = { kubernetes_host: api.url, kubernetes_ca_cert: api.ca }
    const malformed = '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----'
    for (const body of [
      { ...usual, kubernetes_host: 'https://other.example' },
      { ...usual, pem_keys: malformed },
      usual,
    ])
      compare({ title: 'config write', body }, await both('POST', 'auth/configs/config', body))
    compare({ title: 'config read' }, await both('GET', 'auth/configs/config'), CONFIG_MEMBERS)
    compare({ title: 'config delete' }, await both('DELETE', 'auth/configs/config'))
    expect(unexplained).toEqual([])
  })

  test(`${ROLES} roles, written twice`, async () => {
    await mount('roles')
    const pairs = fc.sample(fc.tuple(roleBody(true), roleBody(false)), { numRuns: ROLES, seed: SEED })
    for (const [index, bodies] of pairs.entries()) {
      const path = `auth/roles/role/r${index}`
      for (const body of bodies) {
        const answers = await both('POST', path, body)
        compare({ title: `role r${index} write`, body }, answers)
        const [theirs, ours] = answers
        // From here on they are two different roles.
        if (OK(theirs) !== OK(ours)) break
        const read = await both('GET', path)
        if (OK(theirs))
          compare({ title: `role r${index} read after`, body }, read.map(normalized) as never, ROLE_MEMBERS)
      }
    }
    for (const name of ['-a', 'a-', 'a b', 'UPPER', 'a..b', '_a'])
      compare(
        { title: `role ${name}` },
        await both('POST', `auth/roles/role/${encodeURIComponent(name)}`, {
          bound_service_account_names: 'a',
          bound_service_account_namespaces: 'b',
          audience: 'v',
        }),
      )
    for (const [method, path] of [
      ['GET', 'role/absent'],
      ['DELETE', 'role/absent'],
      ['GET', 'role'],
      ['POST', 'role'],
      ['GET', 'nothing'],
    ] as const)
      compare(
        { title: `${method} ${path}` },
        await both(method, `auth/roles/${path}`, method === 'POST' ? {} : undefined),
      )
    expect(unexplained).toEqual([])
  })

  test('logins with tokens of every kind, and what becomes of the tokens', async () => {
    await mount('logins', { disable_iss_validation: true })
    await mount('iss-default', { disable_iss_validation: false })
    await mount('iss-other', { disable_iss_validation: false, issuer: 'https://other.example' })
    await mount('iss-own', { disable_iss_validation: false, issuer: cluster.issuer })
    const everybody = {
      bound_service_account_names: '*',
      bound_service_account_namespaces: '*',
      audience: cluster.audience,
      token_ttl: '1h',
    }
    const roles: Record<string, object> = {
      plain: everybody,
      'no-audience': { ...everybody, audience: '' },
      name: { ...everybody, bound_service_account_names: 'checkout-*' },
      'other-name': { ...everybody, bound_service_account_names: 'other,*x' },
      'other-namespace': { ...everybody, bound_service_account_namespaces: 'a,b' },
      label: {
        ...everybody,
        bound_service_account_namespaces: 'a',
        bound_service_account_namespace_selector: '{"matchLabels":{"team":"payments"}}',
      },
      'other-label': {
        ...everybody,
        bound_service_account_namespaces: 'a',
        bound_service_account_namespace_selector: '{"matchLabels":{"team":"x"}}',
      },
      cidr: { ...everybody, token_bound_cidrs: '203.0.113.0/24' },
      'own-cidr': { ...everybody, token_bound_cidrs: '127.0.0.0/8' },
      policies: { ...everybody, token_policies: 'B, a,,b' },
      'no-default': { ...everybody, token_no_default_policy: true, token_policies: 'x' },
      capped: { ...everybody, token_ttl: '50m', token_explicit_max_ttl: '30m' },
      period: { ...everybody, token_period: '20m' },
      'period-capped': { ...everybody, token_period: '2h', token_max_ttl: '1h' },
      batch: { ...everybody, token_type: 'batch' },
      uses: { ...everybody, token_num_uses: 3 },
      alias: { ...everybody, alias_name_source: 'serviceaccount_name' },
      'no-ttl': { ...everybody, token_ttl: 0 },
    }
    for (const name of ['logins', 'iss-default', 'iss-other', 'iss-own'])
      for (const [role, body] of Object.entries(roles))
        if (name === 'logins' || role === 'plain') await both('POST', `auth/${name}/role/${role}`, body)

    const attempt = async (at: string, role: string, token: TokenChange, jwt?: string) => {
      const body = { role, jwt: jwt ?? (await cluster.token({ now: now(), ...token })) }
      const answers = await both('POST', `auth/${at}/login`, body, [null, null])
      compare(
        { title: `login ${at} ${role}`, token: jwt === undefined ? token : { claims: jwt } },
        answers,
        AUTH_MEMBERS,
      )
      return answers
    }
    for (const body of [
      {},
      { role: '' },
      { role: 'plain' },
      { role: 'plain', jwt: '' },
      { role: 'absent', jwt: 'x' },
      { role: 'a"b', jwt: 'x' },
      { jwt: 'x' },
    ])
      compare({ title: 'login body', body }, await both('POST', 'auth/logins/login', body, [null, null]))
    for (const jwt of ['x', 'a.b.c', 'a.b', '..', 'eyJhbGciOiJub25lIn0.e30.', '{"payload":"e30","signatures":[]}'])
      await attempt('logins', 'plain', {}, jwt)
    for (const role of Object.keys(roles)) for (const token of tokens(other)) await attempt('logins', role, token)
    for (const at of ['iss-default', 'iss-other', 'iss-own']) await attempt(at, 'plain', {})
    for (const lie of [
      { authenticated: false },
      { authenticated: true, error: 'x' },
      { authenticated: true, user: { username: 'system:serviceaccount:a:b', uid: 'c' }, audiences: [cluster.audience] },
      { authenticated: true, user: {}, audiences: [] },
    ]) {
      fake.lie = () => lie
      await attempt('logins', 'plain', {})
    }
    fake.lie = (status) => status
    fake.interfere = () => new Response('', { status: 500 })
    await attempt('logins', 'plain', {})
    fake.interfere = () => undefined

    for (const role of [
      'plain',
      'capped',
      'period',
      'period-capped',
      'batch',
      'uses',
      'no-default',
      'own-cidr',
      'no-ttl',
    ]) {
      const given = (await attempt('logins', role, {})).map(({ auth }) => String(auth?.client_token ?? ''))
      const use = async (method: string, path: string, body?: object, members?: readonly string[]) =>
        compare(
          { title: `${role}: ${method} ${path}`, body: body as never },
          await both(method, path, body, given),
          members,
        )
      await use('GET', 'auth/token/lookup-self', undefined, LOOKUP_MEMBERS)
      await use('POST', 'auth/token/renew-self', { increment: 60 }, AUTH_MEMBERS)
      await use('POST', 'auth/token/renew-self', { increment: 'x' })
      await use('GET', 'auth/token/lookup-self', undefined, LOOKUP_MEMBERS)
      await use('POST', 'auth/token/revoke-self')
      await use('GET', 'auth/token/lookup-self', undefined, LOOKUP_MEMBERS)
    }
    const counted = (await attempt('logins', 'uses', {})).map(({ auth }) => String(auth?.client_token ?? ''))
    for (let use = 1; use <= 4; use++) {
      const answers = await both('GET', 'auth/token/lookup-self', undefined, counted)
      compare({ title: `use ${use} of 3` }, answers, LOOKUP_MEMBERS)
    }
    const given = (await attempt('logins', 'plain', {})).map(({ auth }) => String(auth?.client_token ?? ''))
    await both('DELETE', 'auth/logins/role/plain')
    compare({ title: 'renewal without a role' }, await both('POST', 'auth/token/renew-self', {}, given))
    for (const [path, body] of [
      ['lookup', { token: 'x' }],
      ['lookup-accessor', { accessor: 'x' }],
      ['lookup-accessor', {}],
      ['renew', { token: 'x' }],
      ['renew', {}],
      ['revoke', { token: 'x' }],
      ['revoke', {}],
      ['revoke-accessor', { accessor: 'x' }],
    ] as const)
      compare({ title: `operator ${path}`, body }, await both('POST', `auth/token/${path}`, body))
    expect(unexplained).toEqual([])
    expect(compared).toBeGreaterThan(600)
  })

  test('every difference that has been met is in docs/vault.md, and every one that is looked for has been met', () => {
    const documented = readFileSync('docs/vault.md', 'utf8')
    expect(DIFFERENCES.map(({ row }) => row).filter((row) => !documented.includes(`| ${row} |`))).toEqual([])
    expect(DIFFERENCES.map(({ row }) => row).filter((row) => !used.has(row))).toEqual([])
  })
})

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => [name, sorted(member)]),
  )
}

/** Lists that were never given are null there. */
function normalized(said: Said): Said {
  const data = said.data && Object.fromEntries(Object.entries(said.data).map(([name, value]) => [name, value ?? []]))
  return { ...said, data }
}

/** Each beside the token that has nothing wrong with it. */
function tokens(key: TokenKey): readonly TokenChange[] {
  const at = now()
  return [
    {},
    { key },
    { header: { alg: 'none' } },
    { header: { alg: 'HS256' } },
    { header: { alg: 'ES384' } },
    { header: { kid: 'x' } },
    { claims: { aud: ['other'] } },
    { claims: { aud: ['spiffe-edge', 'other'] } },
    { claims: { aud: undefined } },
    { claims: { iss: 'https://other.example' } },
    { claims: { exp: at - 100 } },
    { claims: { exp: at - 30 } },
    { claims: { exp: at + 31_536_000 } },
    { claims: { exp: undefined } },
    { claims: { exp: 'soon' } },
    { claims: { nbf: at + 300 } },
    { claims: { nbf: at + 45 } },
    { claims: { iat: at + 300 } },
    { claims: { iat: undefined, nbf: undefined, exp: undefined } },
    { claims: { 'kubernetes.io': 'x' } },
    { claims: { 'kubernetes.io': undefined } },
    { kubernetes: { serviceaccount: undefined } },
    { kubernetes: { serviceaccount: { name: POD.serviceAccount.name } } },
    { kubernetes: { namespace: 'other' } },
    { kubernetes: { pod: undefined } },
  ]
}

/** A few of the fields. */
function optional(fields: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<Record<string, unknown>> {
  return fc
    .subarray(Object.keys(fields), { maxLength: 6 })
    .chain((names) => fc.record(Object.fromEntries(names.map((name) => [name, fields[name] as fc.Arbitrary<unknown>]))))
}

function configBody(api: TlsService): fc.Arbitrary<Record<string, unknown>> {
  return optional({
    kubernetes_host: fc.constantFrom(api.url, api.url, api.url, '', null, 'https://other.example', 5),
    kubernetes_ca_cert: fc.constantFrom(api.ca, api.ca, '', 'nonsense'),
    token_reviewer_jwt: fc.constantFrom('x.y.z', ''),
    pem_keys: fc.constantFrom(
      [],
      '',
      'nonsense',
      ['nonsense'],
      '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----',
    ),
    disable_local_ca_jwt: fc.constantFrom(true, false, 'true', 'nonsense'),
    issuer: fc.constantFrom('', 'https://x.example'),
    disable_iss_validation: fc.constantFrom(true, false, 0, {}),
    use_annotations_as_alias_metadata: fc.constantFrom(false, true),
  })
}

/** @param complete whether names, namespaces and an audience are always there, so that most of them are good */
function roleBody(complete: boolean): fc.Arbitrary<Record<string, unknown>> {
  const seconds = fc.constantFrom<unknown>(
    0,
    1,
    60,
    '60',
    '1h',
    '1h30m',
    '1.5s',
    '1d',
    '',
    -1,
    '-1s',
    'abc',
    1.5,
    '1w',
    null,
    3_000_000,
  )
  const names = fc.constantFrom<unknown>('a', 'a,b', ' a , b ', ['a', 'b*'], '*', '*,a', '', [], ['*'], 'A', 5)
  return fc
    .tuple(
      fc.record({
        bound_service_account_names: fc.constantFrom('web', 'a,b', '*'),
        bound_service_account_namespaces: fc.constantFrom('shop', '*', ['a']),
        audience: fc.constantFrom('spiffe-edge', 'vault'),
      }),
      optional({
        bound_service_account_names: names,
        bound_service_account_namespaces: names,
        bound_service_account_namespace_selector: fc.constantFrom(
          '',
          '{"matchLabels":{"a":"b"}}',
          'matchLabels: {a: b}',
          '{"matchExpressions":[]}',
          'nonsense',
          '{}',
        ),
        audience: fc.constantFrom('', 'vault', '  ', 'a b'),
        alias_name_source: fc.constantFrom('serviceaccount_uid', 'serviceaccount_name', 'nonsense'),
        token_ttl: seconds,
        token_max_ttl: seconds,
        token_explicit_max_ttl: seconds,
        token_period: seconds,
        token_policies: fc.constantFrom<unknown>('a', 'B, a,,b', ['x'], '', 'root', 'default', 7),
        token_bound_cidrs: fc.constantFrom<unknown>(
          '10.0.0.0/8',
          '10.0.0.1/32,::1',
          'nonsense',
          '',
          ['192.0.2.1'],
          '10.0.0.1:80',
          '/tmp/socket',
        ),
        token_no_default_policy: fc.constantFrom<unknown>(true, 'false', 'x', 1),
        token_num_uses: fc.constantFrom<unknown>(0, 3, '4', -1, 'x'),
        token_type: fc.constantFrom('', 'default', 'service', 'batch', 'default-service', 'x'),
        policies: fc.constantFrom<unknown>('b,A', ['c']),
        ttl: seconds,
        max_ttl: seconds,
        period: seconds,
        num_uses: fc.constantFrom<unknown>(0, 2, -4),
        bound_cidrs: fc.constantFrom<unknown>('10.0.0.0/8', ''),
      }),
    )
    .map(([always, sometimes]) => ({ ...(complete && always), ...sometimes }))
}
