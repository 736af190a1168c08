import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ConfigError, parseConfig } from '../../worker/config.ts'
import { type Mode, parseKeySettings } from '../../worker/key_settings.ts'
import { KEY_TIMES } from '../../worker/key_times.ts'
import { cluster, manifest, registration } from '../support/policy.ts'

const PRODUCTION = {
  ISSUER: 'https://issuer.example.org',
  TRUST_DOMAIN: 'example.org',
  SIGNING_KEY: 'awskms:alias/issuer',
  AWS_REGION: 'eu-central-1',
  AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
  AWS_SECRET_ACCESS_KEY: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
}

const DEVELOPMENT = {
  MODE: 'development',
  ISSUER: 'http://localhost:8787',
  TRUST_DOMAIN: 'example.org',
  SIGNING_KEY: 'local:dev',
}

/** @returns what is wrong, nothing if it is good */
function problemsOf(env: object, mode: Mode = 'production', text = ''): readonly string[] {
  try {
    parseConfig(env, text, mode)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

describe('a good environment', () => {
  test('T-12: becomes a configuration that nobody can change', () => {
    const config = parseConfig(PRODUCTION, '', 'production')
    expect(config).toMatchObject({
      issuer: 'https://issuer.example.org',
      basePath: '',
      trustDomain: { name: 'example.org' },
      keys: {
        stamp: { mode: 'production', issuer: 'https://issuer.example.org', trustDomain: 'example.org' },
        sources: [{ use: 'jwt-svid', entry: 1, reference: { keeper: 'awskms', key: 'alias/issuer', alg: null } }],
        kms: {
          region: 'eu-central-1',
          endpoint: null,
          credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: PRODUCTION.AWS_SECRET_ACCESS_KEY },
        },
        wrapping: [],
        times: KEY_TIMES,
      },
    })
    expect([config.policy.clusters.size, config.policy.registrations.all, config.manifest]).toEqual([0, [], []])
    expect(Object.isFrozen(config)).toBe(true)
  })

  test('KM-10: keeps the access to KMS that it has: a key that is listed no more signs until its successor may', () => {
    const listed = parseConfig(PRODUCTION, '', 'production').keys
    const WRAPPING_KEY = `aes:${'A'.repeat(42)}E`
    const { keys } = parseConfig({ ...PRODUCTION, SIGNING_KEY: 'wrapped', WRAPPING_KEY }, '', 'production')
    expect(keys.kms).toEqual(listed.kms)
    for (const name of ['AWS_REGION', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) {
      const env = { ...PRODUCTION, SIGNING_KEY: 'wrapped', WRAPPING_KEY, [name]: '' }
      expect(parseConfig(env, '', 'production').keys.kms, `without ${name}`).toBeNull()
    }
  })

  test('in development needs no KMS, and may be http on this machine', () => {
    expect(parseConfig(DEVELOPMENT, '', 'development')).toMatchObject({
      keys: { stamp: { mode: 'development' }, kms: null },
      basePath: '',
    })
  })

  test.each([
    ['https://issuer.example.org', ''],
    ['https://issuer.example.org:8443', ''],
    ['https://example.org/issuer', '/issuer'],
    ['https://example.org/a/b', '/a/b'],
  ])('OD-1: the issuer %s has the base path %j', (ISSUER, basePath) => {
    expect(parseConfig({ ...PRODUCTION, ISSUER }, '', 'production')).toMatchObject({ issuer: ISSUER, basePath })
  })

  test("keys keep the operator's order, whatever stands between them", () => {
    const SIGNING_KEY = ' awskms:alias/a,awskms:alias/b?alg=RS256 \n awskms:alias/c '
    const { keys } = parseConfig({ ...PRODUCTION, SIGNING_KEY }, '', 'production')
    expect(keys.sources.map(({ reference }) => reference.key)).toEqual(['alias/a', 'alias/b', 'alias/c'])
  })

  test('may have a session token and an endpoint for KMS', () => {
    const more = { AWS_SESSION_TOKEN: 'token', AWS_ENDPOINT_URL_KMS: 'https://kms.example.org' }
    expect(parseConfig({ ...PRODUCTION, ...more }, '', 'production').keys.kms).toMatchObject({
      endpoint: 'https://kms.example.org',
      credentials: { sessionToken: 'token' },
    })
  })

  test('may hold bindings that are no variables', () => {
    expect(problemsOf({ ...PRODUCTION, KEY_STATE: { getByName() {} }, OTHER: 1 })).toEqual([])
  })

  test('brings the manifest with it', () => {
    const { policy } = parseConfig(PRODUCTION, manifest(cluster('east'), registration('web')), 'production')
    expect([...policy.clusters.keys()]).toEqual(['east'])
    expect(policy.registrations.all.map(({ name }) => name)).toEqual(['web'])
  })
})

describe('T-12: development is asked for, never a default', () => {
  test.each<[string, object, Mode, readonly string[]]>([
    ['no MODE is production', PRODUCTION, 'production', []],
    ['MODE=production is too', { ...PRODUCTION, MODE: 'production' }, 'production', []],
    [
      'the deployed entry refuses development',
      { ...PRODUCTION, MODE: 'development' },
      'production',
      ['MODE: must be production here'],
    ],
    ['and anything else', { ...PRODUCTION, MODE: 'PRODUCTION' }, 'production', ['MODE: must be production here']],
    [
      'the development entry refuses an environment that does not ask for it',
      { ...DEVELOPMENT, MODE: '' },
      'development',
      ['MODE: must be development here'],
    ],
    [
      'or asks for production',
      { ...DEVELOPMENT, MODE: 'production' },
      'development',
      ['MODE: must be development here'],
    ],
  ])('%s', (_, env, mode, problems) => {
    expect(problemsOf(env, mode)).toEqual(problems)
  })

  test('an environment with nothing in it lists all that is needed', () => {
    expect(problemsOf({})).toEqual(['ISSUER: is not set', 'TRUST_DOMAIN: is not set', 'SIGNING_KEY: is not set'])
  })

  test('a local key and a http issuer are refused in production', () => {
    expect(problemsOf({ ...DEVELOPMENT, MODE: undefined })).toEqual([
      'ISSUER: not https',
      'SIGNING_KEY: entry 1: local keys are for development',
    ])
  })
})

describe('12.6: an issuer that relying parties would not take', () => {
  test.each([
    ['http://issuer.example.org', 'not https'],
    ['https://issuer.example.org?a=1', 'has a query'],
    ['https://issuer.example.org/#x', 'has a fragment'],
    ['https://user:secret@issuer.example.org', 'has user information'],
    ['https://issuer.example.org/', 'ends in a slash'],
    ['https://issuer.example.org/a/', 'ends in a slash'],
    ['https://ISSUER.example.org', 'not in its normal form'],
    ['https://issuer.example.org:443', 'not in its normal form'],
    ['issuer.example.org', 'not a URL'],
  ])('%s is refused: %s', (ISSUER, problem) => {
    expect(problemsOf({ ...PRODUCTION, ISSUER })).toEqual([`ISSUER: ${problem}`])
  })
})

describe('signing keys', () => {
  test.each([
    [
      'alias/issuer',
      'SIGNING_KEY: entry 1: is none of awskms:<key>, awskms, wrapped, local:<name>, each with ?alg=… or without',
    ],
    [
      'awskms:alias/a,gcpkms:b',
      'SIGNING_KEY: entry 2: is none of awskms:<key>, awskms, wrapped, local:<name>, each with ?alg=… or without',
    ],
    ['awskms:alias/a awskms:alias/a', 'SIGNING_KEY: entry 2: is listed twice'],
    [
      'awskms:alias/a?alg=HS256',
      'SIGNING_KEY: entry 1: is none of awskms:<key>, awskms, wrapped, local:<name>, each with ?alg=… or without',
    ],
    [Array.from({ length: 21 }, (_, index) => `awskms:alias/${index}`).join(), 'SIGNING_KEY: more than 20 keys'],
  ])('%.40s is refused', (SIGNING_KEY, problem) => {
    expect(problemsOf({ ...PRODUCTION, SIGNING_KEY })).toEqual([problem])
  })

  test.each([
    ['local:ca', 'CA_KEY: entry 1: local keys are for development'],
    ['awskms?alg=PS256', 'CA_KEY: entry 1: certificates are not signed with PS256'],
    ['awskms:alias/ca awskms:alias/ca', 'CA_KEY: entry 2: is listed twice'],
    [' , ', 'CA_KEY: names no key'],
    ['wrapped', 'WRAPPING_KEY: is not set, and CA_KEY lists wrapped keys'],
    [
      'alias/ca',
      'CA_KEY: entry 1: is none of awskms:<key>, awskms, wrapped, local:<name>, each with ?alg=… or without',
    ],
  ])('CA_KEY=%j is refused', (CA_KEY, problem) => {
    expect(problemsOf({ ...PRODUCTION, CA_KEY })).toEqual([problem])
  })

  test('BU-9: what both lists say is no one key', () => {
    const list = { SIGNING_KEY: 'awskms awskms?alg=RS256', CA_KEY: 'awskms' }
    const { sources } = parseConfig({ ...PRODUCTION, ...list }, '', 'production').keys
    expect(sources.map(({ use, entry }) => [use, entry])).toEqual([
      ['jwt-svid', 1],
      ['jwt-svid', 2],
      ['x509-svid', 1],
    ])
    expect(new Set(sources.map(({ source }) => source)).size).toBe(3)
  })

  test('20 are taken', () => {
    const SIGNING_KEY = Array.from({ length: 20 }, (_, index) => `awskms:alias/${index}`).join()
    expect(problemsOf({ ...PRODUCTION, SIGNING_KEY })).toEqual([])
  })

  test.each([' ', ',', ' ,\n, '])('T-12: %j names none, which is no better than not to be set', (SIGNING_KEY) => {
    const problems = problemsOf({ ...PRODUCTION, SIGNING_KEY })
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatch(/^SIGNING_KEY: /)
  })
})

describe('T-16: what wraps keys', () => {
  const secret = `aes:${'A'.repeat(42)}E`

  test.each([
    [secret, [{ keeper: 'secret', secret: `${'A'.repeat(42)}E` }]],
    [`${secret}=`, [{ keeper: 'secret', secret: `${'A'.repeat(42)}E=` }]],
    [
      `awskms:alias/wrap ${secret}`,
      [
        { keeper: 'awskms', key: 'alias/wrap' },
        { keeper: 'secret', secret: `${'A'.repeat(42)}E` },
      ],
    ],
  ])('is read from WRAPPING_KEY: %s', (WRAPPING_KEY, wrapping) => {
    expect(parseConfig({ ...PRODUCTION, WRAPPING_KEY }, '', 'production').keys.wrapping).toEqual(wrapping)
  })

  test('may be an object of the platform that nobody can read the key out of', async () => {
    const secret = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt'])
    const { keys } = parseConfig({ ...PRODUCTION, WRAPPING_KEY: secret, SIGNING_KEY: 'wrapped' }, '', 'production')
    expect(keys.wrapping).toEqual([{ keeper: 'secret', secret }])
  })

  test('is needed for keys that are stored wrapped, and brings access to KMS where it is there', () => {
    const { AWS_REGION: _, ...rest } = { ...PRODUCTION, SIGNING_KEY: 'wrapped' }
    expect(problemsOf(rest)).toEqual(['WRAPPING_KEY: is not set, and SIGNING_KEY lists wrapped keys'])
    expect(problemsOf({ ...rest, WRAPPING_KEY: secret })).toEqual([])
    expect(problemsOf({ ...rest, WRAPPING_KEY: 'awskms:alias/wrap' })).toEqual(['AWS_REGION: is not set'])
  })

  test.each(['aes:short', 'aes:', 'A'.repeat(43), 'awskms:', 'local:a', 'aes', `aes:${'A'.repeat(43)}==`])(
    'is not %s',
    (WRAPPING_KEY) => {
      const problem = 'WRAPPING_KEY: entry 1 is neither awskms:<key> nor aes:<base64 of 32 octets>'
      expect(problemsOf({ ...PRODUCTION, WRAPPING_KEY })).toEqual([problem])
    },
  )

  test('is few keys', () => {
    const WRAPPING_KEY = Array(5).fill(secret).join(' ')
    expect(problemsOf({ ...PRODUCTION, WRAPPING_KEY })).toEqual(['WRAPPING_KEY: more than 4 keys'])
  })
})

describe('when keys are replaced', () => {
  test.each([
    [undefined, 30],
    ['', 30],
    ['1', 1],
    ['366', 366],
  ])('ROTATE_AFTER_DAYS=%j is %i days', (ROTATE_AFTER_DAYS, days) => {
    const { keys } = parseConfig({ ...PRODUCTION, ROTATE_AFTER_DAYS }, '', 'production')
    expect(keys.times).toEqual({ ...KEY_TIMES, replaceAfter: days * 86_400 })
  })

  test.each(['0', '367', '-1', '1.5', '30d', ' 30', '9999'])('ROTATE_AFTER_DAYS=%j is refused', (ROTATE_AFTER_DAYS) => {
    expect(problemsOf({ ...PRODUCTION, ROTATE_AFTER_DAYS })).toEqual([
      'ROTATE_AFTER_DAYS: is not a number from 1 to 366',
    ])
  })

  const times = { ...KEY_TIMES, renew: 1, signingLease: 4, longestTtl: 60, skew: 2, replaceAfter: 30 }

  test('all times may be shortened for a test, and in development only', () => {
    const KEY_TIMES = JSON.stringify(times)
    expect(parseConfig({ ...DEVELOPMENT, KEY_TIMES }, '', 'development').keys.times).toEqual(times)
    expect(problemsOf({ ...PRODUCTION, KEY_TIMES })).toEqual(['KEY_TIMES: is for development'])
  })

  test.each(['{}', 'x', 'null', '[]', JSON.stringify({ ...times, renew: 0 }), JSON.stringify({ ...times, more: 1 })])(
    'but not as %s',
    (text) => {
      expect(problemsOf({ ...DEVELOPMENT, KEY_TIMES: text }, 'development')).toEqual([
        'KEY_TIMES: is not JSON with the times of keys',
      ])
    },
  )
})

test('signing alone is configured by the same variables, or not at all', () => {
  for (const [env, mode] of [
    [PRODUCTION, 'production'],
    [DEVELOPMENT, 'development'],
  ] as const)
    expect(parseKeySettings(env)).toEqual(parseConfig(env, '', mode).keys)
  for (const broken of [{}, { ...PRODUCTION, SIGNING_KEY: 'x' }, { ...DEVELOPMENT, MODE: 'production' }])
    expect(parseKeySettings(broken)).toBeNull()
})

describe('T-16: a web identity', () => {
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...NOBODY } = PRODUCTION
  /** A disk that holds what it is asked for. */
  const disk = { fetch: async (url: string) => new Response(`content of ${url}`) }
  const IDENTITY = {
    ...NOBODY,
    AWS_ROLE_ARN: 'arn:aws:iam::111122223333:role/path/issuer',
    AWS_WEB_IDENTITY_TOKEN_FILE: 'serviceaccount/token',
    AWS_WEB_IDENTITY: disk,
  }

  async function readToken(env: object): Promise<string> {
    const credentials = parseKeySettings(env)?.kms?.credentials
    if (!credentials || !('roleArn' in credentials)) throw new TypeError('not a web identity')
    return await credentials.readToken(AbortSignal.timeout(60_000))
  }

  test('takes the place of an access key', () => {
    expect(parseConfig(IDENTITY, '', 'production').keys.kms).toMatchObject({
      region: 'eu-central-1',
      credentials: { roleArn: IDENTITY.AWS_ROLE_ARN, stsEndpoint: null },
    })
    const elsewhere = { ...IDENTITY, AWS_ENDPOINT_URL_STS: 'https://sts.example.org' }
    expect(parseConfig(elsewhere, '', 'production').keys.kms?.credentials).toMatchObject({
      stsEndpoint: 'https://sts.example.org',
    })
  })

  test.each([
    ['token', 'http://disk/token'],
    ['/a/b_c.d', 'http://disk/a/b_c.d'],
  ])('is in the file %s of its disk', async (AWS_WEB_IDENTITY_TOKEN_FILE, url) => {
    expect(await readToken({ ...IDENTITY, AWS_WEB_IDENTITY_TOKEN_FILE })).toBe(`content of ${url}`)
  })

  test.each<[string, () => Promise<Response>]>([
    ['has no such file', async () => new Response('Not Found', { status: 404 })],
    [
      'has a file without end',
      async () => new Response(new ReadableStream({ pull: (to) => to.enqueue(new Uint8Array(65_536)) })),
    ],
    ['can’t be read', async () => Promise.reject(new Error('I/O'))],
  ])('is not read from a disk that %s', async (_, fetch) => {
    await expect(readToken({ ...IDENTITY, AWS_WEB_IDENTITY: { fetch } })).rejects.toMatchObject({ name: 'FetchError' })
  })

  test.each<[string, object, readonly string[]]>([
    [
      'an access key besides',
      { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY },
      [
        'AWS_ACCESS_KEY_ID: must not be set where there is a web identity',
        'AWS_SECRET_ACCESS_KEY: must not be set where there is a web identity',
      ],
    ],
    [
      'a session token besides',
      { AWS_SESSION_TOKEN: 'secret' },
      ['AWS_SESSION_TOKEN: must not be set where there is a web identity'],
    ],
    ['no role', { AWS_ROLE_ARN: '' }, ['AWS_ROLE_ARN: is not set']],
    ['no file', { AWS_WEB_IDENTITY_TOKEN_FILE: '' }, ['AWS_WEB_IDENTITY_TOKEN_FILE: is not set']],
    ['no disk', { AWS_WEB_IDENTITY: undefined }, ['AWS_WEB_IDENTITY: is not bound to a disk']],
    ['a text for a disk', { AWS_WEB_IDENTITY: 'secret' }, ['AWS_WEB_IDENTITY: is not bound to a disk']],
    [
      'blanks',
      { AWS_ROLE_ARN: `${IDENTITY.AWS_ROLE_ARN}\n` },
      ['AWS_ROLE_ARN: has blanks around it', 'AWS_ROLE_ARN: is not the ARN of a role'],
    ],
    [
      'an endpoint that is http',
      { AWS_ENDPOINT_URL_STS: 'http://localhost:5000' },
      ['AWS_ENDPOINT_URL_STS: not https'],
    ],
    [
      'nothing at all',
      { AWS_ROLE_ARN: '', AWS_WEB_IDENTITY_TOKEN_FILE: '' },
      ['AWS_ACCESS_KEY_ID: is not set', 'AWS_SECRET_ACCESS_KEY: is not set'],
    ],
  ])('is not taken with %s', (_, changes, problems) => {
    expect(problemsOf({ ...IDENTITY, ...changes })).toEqual(problems)
    expect(parseKeySettings({ ...IDENTITY, ...changes })).toBeNull()
  })

  test.each([
    'issuer',
    'arn:aws:iam::111122223333:user/issuer',
    'arn:aws:iam::1:role/issuer',
    'arn:aws:iam::111122223333:role/',
    'arn:aws:sts::111122223333:assumed-role/issuer/x',
    'arn:aws:iam::111122223333:role/a b',
  ])('is not for the role %j', (AWS_ROLE_ARN) => {
    expect(problemsOf({ ...IDENTITY, AWS_ROLE_ARN })).toEqual(['AWS_ROLE_ARN: is not the ARN of a role'])
  })

  test.each(['arn:aws-us-gov:iam::111122223333:role/issuer', 'arn:aws-cn:iam::111122223333:role/a/b/issuer@x'])(
    'is for the role %s',
    (AWS_ROLE_ARN) => {
      expect(problemsOf({ ...IDENTITY, AWS_ROLE_ARN })).toEqual([])
    },
  )

  test.each([
    '..data/token',
    'a/../token',
    'a//token',
    '/',
    'a/',
    'token?x',
    'a%2fb',
    'http://x/',
    '//host/x',
    'x'.repeat(257),
  ])('is not in the file %j', (AWS_WEB_IDENTITY_TOKEN_FILE) => {
    expect(problemsOf({ ...IDENTITY, AWS_WEB_IDENTITY_TOKEN_FILE })).toEqual([
      'AWS_WEB_IDENTITY_TOKEN_FILE: is not a path, like/this',
    ])
  })

  test('T-12: may be asked for by http on this machine in development only', () => {
    const env = { ...IDENTITY, MODE: 'development', AWS_ENDPOINT_URL_STS: 'http://localhost:5000' }
    expect(problemsOf(env, 'development')).toEqual([])
  })
})

test('T-12: an endpoint for KMS is https', () => {
  expect(problemsOf({ ...PRODUCTION, AWS_ENDPOINT_URL_KMS: 'http://localhost:5000' })).toEqual([
    'AWS_ENDPOINT_URL_KMS: not https',
  ])
  const env = { ...PRODUCTION, MODE: 'development', AWS_ENDPOINT_URL_KMS: 'http://localhost:5000' }
  expect(problemsOf(env, 'development')).toEqual([])
})

describe('the manifest', () => {
  test('has its problems listed beside those of the variables', () => {
    const text = manifest(registration('web'), cluster('west', { audiences: [] }))
    const problems = problemsOf({ ...PRODUCTION, SIGNING_KEY: '' }, 'production', text)
    expect(problems).toContain('SIGNING_KEY: is not set')
    expect(problems).toContain('manifest: WorkloadRegistration web: spec.clusters: there is no Cluster east')
    expect(problems.filter((problem) => problem.startsWith('manifest: Cluster west: spec.audiences: '))).toHaveLength(1)
  })

  test('may be empty', () => {
    expect(problemsOf(PRODUCTION, 'production', '# nothing\n')).toEqual([])
  })

  test('whatever it says, the answer is a configuration or a ConfigError', () => {
    const line = fc.constantFrom(
      ...[
        'a: 1',
        '- x',
        '---',
        '...',
        '%YAML 1.1',
        '&a []',
        '*a',
        '!!binary x',
        '{',
        '}',
        '"',
        "'",
        '\t',
        '|',
        '<<: *a',
        'kind: Cluster',
        'metadata: {name: 1}',
        'kind: [Cluster]',
        'null',
        '~',
        '2',
      ],
    )
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ weight: 5, arbitrary: line }, fc.string({ maxLength: 20 })), { maxLength: 8 }),
        (lines) => {
          expect(() => problemsOf(PRODUCTION, 'production', lines.join('\n'))).not.toThrow()
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('T-10: the bindings that records of clusters name', () => {
  const service = { fetch: async () => new Response() }
  const record = (spec: object) =>
    manifest(cluster('east', { connection: { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }, ...spec }))
  const file = { reviewer: { file: { binding: 'CLUSTER_DISK', path: 'token' } } }
  const secret = { reviewer: { secret: 'CLUSTER_TOKEN' } }

  test.each<[string, object, object, readonly string[]]>([
    ['a service', { CLUSTER_EAST: service }, {}, []],
    ['no binding', {}, { connection: { url: 'https://east.example.net' } }, []],
    ['a disk', { CLUSTER_EAST: service, CLUSTER_DISK: service }, file, []],
    ['a secret', { CLUSTER_EAST: service, CLUSTER_TOKEN: 'a.b.c' }, secret, []],
    ['a service that there is not', {}, {}, ['spec.connection.binding: there is no binding CLUSTER_EAST']],
    ['an empty string', { CLUSTER_EAST: '' }, {}, ['spec.connection.binding: there is no binding CLUSTER_EAST']],
    [
      'an object of another kind',
      { CLUSTER_EAST: {} },
      {},
      ['spec.connection.binding: there is no binding CLUSTER_EAST'],
    ],
    ['a secret for a service', { CLUSTER_EAST: 'x' }, {}, ['spec.connection.binding: CLUSTER_EAST is no service']],
    [
      'a service for a secret',
      { CLUSTER_EAST: service, CLUSTER_TOKEN: service },
      secret,
      ['spec.reviewer.secret: CLUSTER_TOKEN is no secret'],
    ],
    ['no disk', { CLUSTER_EAST: service }, file, ['spec.reviewer.file.binding: there is no binding CLUSTER_DISK']],
    ['no secret', { CLUSTER_EAST: service }, secret, ['spec.reviewer.secret: there is no binding CLUSTER_TOKEN']],
  ])('%s', (_, bindings, spec, problems) => {
    expect(problemsOf({ ...PRODUCTION, ...bindings }, 'production', record(spec))).toEqual(
      problems.map((problem) => `manifest: Cluster east: ${problem}`),
    )
  })

  test('no other of the worker’s is among them, whatever it is called', () => {
    const env = { ...PRODUCTION, KEY_STATE: service, CLUSTER_: service, cluster_a: service, CLUSTER_A: service }
    expect([...parseConfig(env, '', 'production').clusterBindings.keys()]).toEqual(['CLUSTER_A'])
    for (const binding of ['KEY_STATE', 'AWS_SECRET_ACCESS_KEY', 'CLUSTER_'])
      expect(problemsOf(env, 'production', record({ reviewer: { secret: binding } })).join()).toContain('spec.reviewer')
  })

  test('and their values are repeated nowhere', () => {
    const text = record({ connection: { url: 'https://10.0.0.1', binding: 'CLUSTER_TOKEN' } })
    expect(problemsOf({ ...PRODUCTION, CLUSTER_TOKEN: 'xSECRETx' }, 'production', text).join()).not.toContain('SECRET')
  })
})

/** A good value for each variable, and bad ones, with a text in them that must not be repeated. */
const VARIABLES: Readonly<Record<string, { good: string; bad: readonly (string | undefined)[] }>> = {
  MODE: { good: 'production', bad: ['development', 'xSECRETx'] },
  ISSUER: { good: PRODUCTION.ISSUER, bad: [undefined, '', 'http://xSECRETx', 'https://xSECRETx/', 'xSECRETx'] },
  TRUST_DOMAIN: { good: PRODUCTION.TRUST_DOMAIN, bad: [undefined, '', 'xSECRETx', 'spiffe://xsecretx', 'x:1'] },
  SIGNING_KEY: { good: PRODUCTION.SIGNING_KEY, bad: ['awskms:alias/a xSECRETx', 'awskms:alias/a,local:xSECRETx'] },
  AWS_REGION: { good: PRODUCTION.AWS_REGION, bad: [undefined, ''] },
  AWS_ACCESS_KEY_ID: { good: PRODUCTION.AWS_ACCESS_KEY_ID, bad: [undefined, ''] },
  AWS_SECRET_ACCESS_KEY: { good: PRODUCTION.AWS_SECRET_ACCESS_KEY, bad: [undefined, ''] },
  AWS_ENDPOINT_URL_KMS: { good: 'https://kms.example.org', bad: ['http://xSECRETx', 'xSECRETx', 'https://xSECRETx'] },
}

test('T-12: for any set of broken variables exactly these are listed, and no value is repeated', () => {
  const broken = fc.record(
    Object.fromEntries(Object.entries(VARIABLES).map(([name, { bad }]) => [name, fc.constantFrom(...bad)])),
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(broken, (changes) => {
      const good = Object.fromEntries(Object.entries(VARIABLES).map(([name, { good }]) => [name, good]))
      const problems = problemsOf({ ...good, ...changes })
      expect(new Set(problems.map((problem) => problem.split(':')[0]))).toEqual(new Set(Object.keys(changes)))
      const text = problems.join('\n').toLowerCase()
      for (const secret of ['xsecretx', PRODUCTION.AWS_SECRET_ACCESS_KEY.toLowerCase(), 'akidexample'])
        expect(text).not.toContain(secret)
    }),
    { numRuns: 300 },
  )
})

test('KM-12: a credential with a blank or newline around it is told at the start, not by KMS', () => {
  expect(() =>
    parseConfig(
      {
        ISSUER: 'https://issuer.example.org',
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: 'awskms:alias/a',
        AWS_REGION: 'eu-central-1\n',
        AWS_ACCESS_KEY_ID: ' id',
        AWS_SECRET_ACCESS_KEY: 'secret ',
        AWS_SESSION_TOKEN: 'token',
      },
      '',
      'production',
    ),
  ).toThrow(
    new ConfigError([
      'AWS_REGION: has blanks around it',
      'AWS_ACCESS_KEY_ID: has blanks around it',
      'AWS_SECRET_ACCESS_KEY: has blanks around it',
    ]),
  )
})
