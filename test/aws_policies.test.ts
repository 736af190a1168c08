/**
 * What an operator lets the worker do in AWS, against what it does there. That the policies say it in a way that AWS takes
 * is not tested: there is no IAM here to ask.
 */

import { globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ALGORITHMS } from '../keys/algorithms.ts'

interface Statement {
  readonly Sid: string
  readonly Effect: string
  readonly Action: string | readonly string[]
  readonly Resource: string
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>
}

function statementsOf(name: string): readonly Statement[] {
  const { Version, Statement } = JSON.parse(readFileSync(`deploy/aws/${name}-policy.json`, 'utf8'))
  expect(Version).toBe('2012-10-17')
  return Statement
}

const POLICIES = globSync('deploy/aws/*-policy.json').map((file) => basename(file, '-policy.json'))
const actionsOf = ({ Action }: Statement) => [Action].flat()
const allowed = (policies: readonly string[]) => policies.flatMap(statementsOf).flatMap(actionsOf).sort()
const statement = (policy: string, action: string) =>
  statementsOf(policy).find((candidate) => actionsOf(candidate).includes(action))

/** Operations of KMS that the code of these files asks for. */
function asked(...files: string[]): string[] {
  const source = files.map((file) => readFileSync(`keys/${file}.ts`, 'utf8')).join('')
  return [...source.matchAll(/new (\w+)Command\(/g)].map(([, operation]) => `kms:${operation}`).sort()
}

test('each policy allows what its part of the code asks for, and nothing else', () => {
  expect(POLICIES.sort()).toEqual(['created-keys', 'signing', 'wrapping'])
  expect(allowed(['signing'])).toEqual(asked('kms'))
  // Creating with tags is tagging as well, and the tagging API is not part of the SDK.
  const created = [...asked('kms', 'kms_keys'), 'kms:TagResource', 'tag:GetResources'].sort()
  expect(allowed(['created-keys'])).toEqual(created)
  expect(allowed(['wrapping'])).toEqual(asked('kms_encryption'))
  expect(asked('kms', 'kms_keys', 'kms_encryption')).toEqual(
    asked(...globSync('keys/*.ts').map((file) => basename(file, '.ts'))),
  )
})

describe.each(POLICIES)('%s', (policy) => {
  test.each(statementsOf(policy))('$Sid allows nothing by a pattern, and no key without a condition', (entry) => {
    expect(entry.Effect).toBe('Allow')
    for (const action of actionsOf(entry)) expect(action).toMatch(/^(kms|tag):[A-Za-z]+$/)
    expect(entry.Resource).toMatch(/^(\*|arn:aws:kms:REGION:ACCOUNT:key\/(\*|KEY_ID))$/)
    if (actionsOf(entry).includes('tag:GetResources')) return
    expect(Object.keys(entry.Condition ?? {})).not.toEqual([])
  })
})

test('T-16: one service account of one cluster takes the role by a web identity, and no other', () => {
  const { Statement } = JSON.parse(readFileSync('deploy/aws/web-identity-trust.json', 'utf8'))
  expect(Statement).toEqual([
    {
      Sid: 'TheIssuersServiceAccount',
      Effect: 'Allow',
      Action: 'sts:AssumeRoleWithWebIdentity',
      Principal: { Federated: 'arn:aws:iam::ACCOUNT:oidc-provider/CLUSTER_ISSUER' },
      Condition: {
        StringEquals: {
          'CLUSTER_ISSUER:aud': 'sts.amazonaws.com',
          'CLUSTER_ISSUER:sub': 'system:serviceaccount:NAMESPACE:SERVICE_ACCOUNT',
        },
      },
    },
  ])
})

describe('T-15: keys that the worker creates', () => {
  test.each(['kms:Sign', 'kms:GetPublicKey', 'kms:DescribeKey', 'kms:ScheduleKeyDeletion'])(
    '%s is only for signing keys of the trust domain',
    (action) => {
      expect(statement('created-keys', action)?.Condition?.StringEquals).toMatchObject({
        'aws:ResourceTag/spiffe-edge:trust-domain': 'TRUST_DOMAIN',
        'kms:KeyUsage': 'SIGN_VERIFY',
      })
    },
  )

  test('are created with the tag, and only as keys that the code creates', () => {
    const condition = statement('created-keys', 'kms:CreateKey')?.Condition?.StringEquals
    expect(condition).toMatchObject({ 'aws:RequestTag/spiffe-edge:trust-domain': 'TRUST_DOMAIN' })
    const specs = new Set(Object.values(ALGORITHMS).map(({ kmsKeySpecs }) => kmsKeySpecs[0]))
    expect(condition?.['kms:KeySpec']).toEqual([...specs])
    expect(condition?.['kms:KeyUsage']).toBe('SIGN_VERIFY')
  })

  test.each(['kms:CreateKey', 'kms:TagResource'])('%s gives no tags of other names', (action) => {
    expect(statement('created-keys', action)?.Condition?.['ForAllValues:StringLike']).toEqual({
      'aws:TagKeys': 'spiffe-edge:*',
    })
  })

  test('a key of another trust domain, and a key that encrypts, can not be made one of ours by a tag', () => {
    const { StringEquals, StringEqualsIfExists } = statement('created-keys', 'kms:TagResource')?.Condition ?? {}
    expect(StringEquals).toEqual({ 'aws:RequestTag/spiffe-edge:trust-domain': 'TRUST_DOMAIN' })
    expect(StringEqualsIfExists).toEqual({
      'aws:ResourceTag/spiffe-edge:trust-domain': 'TRUST_DOMAIN',
      'kms:KeyUsage': 'SIGN_VERIFY',
    })
  })

  test('KM-11: a deletion leaves as much time as the code asks for', () => {
    const [, days] = /days = (\d+)/.exec(readFileSync('keys/kms_keys.ts', 'utf8')) ?? []
    const condition = statement('created-keys', 'kms:ScheduleKeyDeletion')?.Condition
    expect(condition?.NumericGreaterThanEqualsIfExists).toEqual({
      'kms:ScheduleKeyDeletionPendingWindowInDays': days,
    })
  })
})

test('T-16: the wrapping key is for keys of the trust domain, by the names that the code gives', () => {
  const source = readFileSync('keys/wrapped.ts', 'utf8')
  const [, members = ''] = /return \{ ('spiffe-edge:.+) \}/.exec(source) ?? []
  const names = [...members.matchAll(/'([^']+)':/g)].map(([, name]) => name)
  expect(names).toHaveLength(3)
  const [only] = statementsOf('wrapping')
  expect(only?.Resource).toMatch(/\/KEY_ID$/)
  expect(only?.Condition).toEqual({
    StringEquals: {
      'kms:EncryptionContext:spiffe-edge:trust-domain': 'TRUST_DOMAIN',
      'kms:EncryptionContext:spiffe-edge:use': ['jwt-svid', 'x509-svid'],
      'kms:EncryptionAlgorithm': 'SYMMETRIC_DEFAULT',
    },
    'ForAllValues:StringEquals': { 'kms:EncryptionContextKeys': names },
    Null: { 'kms:EncryptionContext:spiffe-edge:kid': 'false' },
  })
})
