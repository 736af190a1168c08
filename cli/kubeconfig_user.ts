/**
 * The user of a kubeconfig that has its credential from a program, and its way into a file that people write by hand.
 *
 * @see [kubeconfig (v1)](https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/)
 */

import { isMap, isScalar, isSeq, type Node, parseDocument, type YAMLMap } from 'yaml'
import { Failure } from './failure.ts'
import { printable } from './terminal.ts'

/** EX-4. */
export interface ExecUser {
  readonly name: string
  readonly user: {
    readonly exec: {
      readonly apiVersion: string
      readonly command: string
      readonly args: readonly string[]
      readonly interactiveMode: 'Never' | 'IfAvailable'
      readonly provideClusterInfo: boolean
      readonly installHint: string
    }
  }
}

/**
 * @param text a kubeconfig; comments in it stay
 * @param context that is to have the user; undefined for none
 * @param replace whether a user of that name may be lost who is not of our making
 * @returns the kubeconfig with the user
 * @throws Failure
 */
export function withUser(text: string, user: ExecUser, context: string | undefined, replace: boolean): string {
  const document = parseDocument(text, { merge: true })
  if (document.errors.length > 0 || !(document.contents === null || isMap(document.contents)))
    throw new Failure('is no kubeconfig')
  if (document.contents === null)
    document.contents = document.createNode({ apiVersion: 'v1', kind: 'Config' }) as Node as never
  const root = document.contents as YAMLMap
  if ((root.get('kind') ?? 'Config') !== 'Config') throw new Failure('is no kubeconfig')

  const entry = document.createNode(user) as YAMLMap
  const users = listIn(root, 'users')
  const old = users ? entryOf(users, user.name) : null
  if (old && !replace && old.getIn(['user', 'exec', 'command']) !== user.user.exec.command)
    throw new Failure(`has a user ${printable(user.name)} already, who is another. With --replace that one is lost`)
  if (old) old.set('user', entry.get('user', true))
  else if (users) users.add(entry)
  else root.set('users', document.createNode([user]))

  if (context !== undefined) {
    const contexts = listIn(root, 'contexts')
    const chosen = contexts ? entryOf(contexts, context) : null
    if (!chosen) throw new Failure(`has no context ${printable(context)}`)
    chosen.setIn(['context', 'user'], user.name)
  }
  return isJson(text) ? `${JSON.stringify(document.toJS(), null, 2)}\n` : document.toString({ lineWidth: 0 })
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function listIn(root: YAMLMap, name: string) {
  const list = root.get(name, true)
  if (isSeq(list)) return list
  // kubectl writes null where there is none.
  if (list === undefined || (isScalar(list) && list.value === null)) return null
  throw new Failure('is no kubeconfig')
}

function entryOf(list: NonNullable<ReturnType<typeof listIn>>, name: string): YAMLMap | null {
  const entries = list.items.filter((item): item is YAMLMap => isMap(item) && item.get('name') === name)
  if (entries.length > 1) throw new Failure(`has ${printable(name)} more than once`)
  return entries[0] ?? null
}
