import { expect, test } from 'vitest'
import { SpiffeId } from '../../../worker/spiffe/id.ts'
import { isReserved } from '../../../worker/spiffe/reserved.ts'

test.each([
  'spiffe://td/spire',
  'spiffe://td/spire/server',
  'spiffe://td/spire/agent/k8s_psat/east/uid',
  'spiffe://td/spiffe-edge',
  'spiffe://td/spiffe-edge/reviewer/east',
  // ID-10: a signing authority's own.
  'spiffe://td',
])('T-5, ID-14: %s is no workload', (text) => {
  expect(isReserved(SpiffeId.parse(text))).toBe(true)
})

test.each([
  'spiffe://td/spires',
  'spiffe://td/spire-agent',
  'spiffe://td/spiffe-edge2/x',
  'spiffe://td/ns/spire/sa/spire',
  'spiffe://td/a/spire/server',
  'spiffe://spire/a',
  // ID-8: paths differ by case, so this is another one.
  'spiffe://td/SPIRE/server',
])('T-5: %s may be one', (text) => {
  expect(isReserved(SpiffeId.parse(text))).toBe(false)
})
