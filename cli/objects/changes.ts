/** What a change to the worker's objects does, in the words of kubectl. */

import { isDeepStrictEqual } from 'node:util'
import { type Change, isRecord } from '../admin_client.ts'
import { printable } from '../terminal.ts'

const DONE = { create: 'created', update: 'updated', delete: 'deleted', unchanged: 'unchanged' } as const

/**
 * @param dryRun whether it has not been done
 * @returns a line for each object, and under an updated one a line for each field that differs
 */
export function describeChanges(changes: readonly Change[], dryRun: boolean): string {
  return changes
    .flatMap(({ kind, name, action, before, after }) => [
      `${printable(kind)}/${printable(name)} ${DONE[action]}${dryRun ? ' (dry run)' : ''}`,
      ...(action === 'update' ? differences('spec', before, after) : []),
    ])
    .map((line) => `${line}\n`)
    .join('')
}

function differences(path: string, before: unknown, after: unknown): string[] {
  if (isDeepStrictEqual(before, after)) return []
  if (isRecord(before) && isRecord(after)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(after)])
    return [...keys].flatMap((key) => differences(`${path}.${key}`, before[key], after[key]))
  }
  return [`  ${printable(path)}: ${show(before)} → ${show(after)}`]
}

function show(value: unknown): string {
  return value === undefined || value === null ? '(none)' : printable(JSON.stringify(value))
}
