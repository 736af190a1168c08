/**
 * The one line of kube-apiserver's metrics that says which JWKS it holds, and nothing else of the format. Since
 * Kubernetes 1.35.
 *
 * @see [Prometheus text format](https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format)
 */

import { createHash } from 'node:crypto'

const NAME = 'apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info'

const LABEL = /[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\[\\"n])*)"[ \t]*(,|(?=\}))/y
/** The value, which is always one, and perhaps a time. */
const REST = /^[ \t]+1(?:\.0*)?(?:[ \t]+-?\d+)?[ \t]*$/
const HASH = /^sha256:([0-9a-f]{64})$/

/** Thrown by {@link readKeySets}: a line that cannot be read cannot be proof of anything. */
export class MetricError extends Error {
  override readonly name = 'MetricError'
}

/** @returns the name that kube-apiserver has for an issuer, or for itself, or for a JWKS: the SHA-256 of the text */
export function metricHash(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}

/**
 * @param text what `/metrics` answered
 * @returns the SHA-256 of the JWKS of this issuer, by the `apiserver_id_hash` of the API server that holds it
 * @throws MetricError
 */
export function readKeySets(text: string, issuer: string): ReadonlyMap<string, string> {
  const wanted = metricHash(issuer)
  const found = new Map<string, string>()
  for (let start = text.indexOf(NAME); start !== -1; start = text.indexOf(NAME, start + NAME.length)) {
    // Comments name it too, and so may another metric's name or label.
    if (start > 0 && text[start - 1] !== '\n') continue
    const end = text.indexOf('\n', start)
    const line = text.slice(start + NAME.length, end === -1 ? undefined : end)
    if (/^[a-zA-Z0-9_:]/.test(line)) continue
    const labels = labelsOf(line)
    if (labels.get('jwt_issuer_hash') !== wanted) continue
    const [, keySet] = HASH.exec(labels.get('hash') ?? '') ?? []
    const apiserver = labels.get('apiserver_id_hash') ?? ''
    // An API server without an identity cannot be counted.
    if (keySet === undefined || !HASH.test(apiserver)) throw new MetricError('a label is missing, or is no hash')
    if (found.has(apiserver)) throw new MetricError('an API server is there twice')
    found.set(apiserver, keySet)
  }
  return found
}

/** @param line what follows the name */
function labelsOf(line: string): Map<string, string> {
  const labels = new Map<string, string>()
  const open = /^[ \t]*\{/.exec(line)
  if (!open) throw new MetricError('there are no labels')
  let position = open[0].length
  for (;;) {
    LABEL.lastIndex = position
    const [label, name = '', value = '', separator] = LABEL.exec(line) ?? []
    if (label === undefined) break
    if (labels.has(name)) throw new MetricError('a label is there twice')
    labels.set(name, unescaped(value))
    position += label.length
    if (separator === '') break
  }
  const close = /^[ \t]*\}/.exec(line.slice(position))
  if (!close || !REST.test(line.slice(position + close[0].length))) throw new MetricError('the line has another form')
  return labels
}

function unescaped(value: string): string {
  return value.replace(/\\([\\"n])/g, (_, character: string) => (character === 'n' ? '\n' : character))
}
