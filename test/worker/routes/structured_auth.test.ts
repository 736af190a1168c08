import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { structuredAuth } from '../../../worker/routes/structured_auth.ts'
import { cluster } from '../../support/policy.ts'
import { TestIssuer, textOf } from '../issuer.ts'

const none = new TestIssuer([])
const one = new TestIssuer([cluster('east')])
const two = new TestIssuer([cluster('east'), cluster('west', { apiServer: { audiences: ['k8s-secret'] } })])

const get = (query: string, by = one): Response =>
  structuredAuth(
    new Request(`https://issuer.example.org/structured-auth.yaml${query}`),
    by.deps.issuer,
    by.deps.config.policy,
  )

async function configuration(query: string, by = one) {
  const answer = get(query, by)
  expect(answer.status).toBe(200)
  return parse(await textOf(answer))
}

describe('T-13: closed choices', () => {
  test('none have to be made where there is one cluster', async () => {
    const answer = get('')
    expect([answer.status, answer.headers.get('content-type'), answer.headers.get('cache-control')]).toEqual([
      200,
      'application/yaml',
      'no-store',
    ])
    expect(parse(await textOf(answer))).toMatchObject({
      apiVersion: 'apiserver.config.k8s.io/v1',
      jwt: [{ issuer: { audiences: ['k8s'] }, claimMappings: { username: { claim: 'sub' } } }],
    })
  })

  test('of the version', async () => {
    expect((await configuration('?version=v1beta1')).apiVersion).toBe('apiserver.config.k8s.io/v1beta1')
  })

  test('of the mapping', async () => {
    const { jwt } = await configuration('?mapping=service-account')
    expect(jwt[0].claimMappings).toHaveProperty('groups')
  })

  test('of the cluster, whose audiences it then has', async () => {
    const audiences = async (name: string) => (await configuration(`?cluster=${name}`, two)).jwt[0].issuer.audiences
    expect([await audiences('east'), await audiences('west')]).toEqual([['k8s-east'], ['k8s-secret']])
  })
})

describe('T-13: everything else', () => {
  test.each([
    ['?version=v1alpha1', 'version is one of v1, v1beta1'],
    ['?version=', 'version is one of v1, v1beta1'],
    ['?version=constructor', 'version is one of v1, v1beta1'],
    ['?mapping=groups', 'mapping is one of sub, service-account'],
    ['?mapping=Sub', 'mapping is one of sub, service-account'],
    ['?audience=evil', 'only version, mapping and cluster can be chosen, each once'],
    ['?issuer=https://evil.example', 'only version, mapping and cluster can be chosen, each once'],
    ['?certificateAuthority=x', 'only version, mapping and cluster can be chosen, each once'],
    ['?__proto__=x', 'only version, mapping and cluster can be chosen, each once'],
    ['?version=v1&version=v1', 'only version, mapping and cluster can be chosen, each once'],
    ['?cluster=east&cluster=west', 'only version, mapping and cluster can be chosen, each once'],
    ['?Version=v1', 'only version, mapping and cluster can be chosen, each once'],
  ])('%s is 400', async (query, reason) => {
    const answer = get(query)
    expect([answer.status, await textOf(answer), answer.headers.get('cache-control')]).toEqual([
      400,
      `${reason}\n`,
      'no-store',
    ])
  })

  test.each([
    '?cluster=north',
    '?cluster=',
    '?cluster=East',
    '?cluster=%00',
    '?cluster=../east',
    '?cluster=constructor',
  ])('%s is 404, and repeats nothing', async (query) => {
    const answer = get(query, two)
    expect([answer.status, await textOf(answer)]).toEqual([404, 'there is no such cluster\n'])
  })

  test('where there is no cluster there is no configuration', () => {
    expect(get('', none).status).toBe(404)
  })

  test('T-24: strangers are not told which clusters there are', async () => {
    const answer = get('', two)
    expect(answer.status).toBe(400)
    expect(await textOf(answer)).toBe('name the cluster\n')
  })

  test("T-24: nor is anything of another cluster in a cluster's configuration", async () => {
    expect(await textOf(get('?cluster=east', two))).not.toContain('secret')
  })
})

test('D8: the issuer is the configured one, whatever host was asked', async () => {
  const request = new Request('https://evil.example/structured-auth.yaml', {
    headers: { host: 'evil.example', 'x-forwarded-host': 'evil.example' },
  })
  const text = await textOf(structuredAuth(request, one.deps.issuer, one.deps.config.policy))
  expect(text).toContain('https://issuer.example.org')
  expect(text).not.toContain('evil')
})
