/** Manifest objects out of YAML or JSON. Whether they make sense is for the worker to say; here it is only their form. */

import { parseAllDocuments } from 'yaml'
import { isManifestObject, type ManifestObject } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { readInput } from '../input_file.ts'
import { printable, type Terminal } from '../terminal.ts'
import { APPLICABLE_KINDS } from './kinds.ts'

/**
 * @param paths `-` is standard input
 * @returns the objects of all files, in their order
 * @throws Failure with everything that is wrong
 */
export async function readManifestFiles(
  paths: readonly string[],
  terminal: Terminal,
): Promise<readonly ManifestObject[]> {
  const problems: string[] = []
  const objects: ManifestObject[] = []
  for (const path of paths) {
    const file = path === '-' ? 'standard input' : printable(path)
    for (const { where, value } of parseDocuments(await readInput(path, terminal), file)) {
      const problem = problemOf(value, objects)
      if (problem) problems.push(`${where}: ${problem}`)
      else objects.push(value as ManifestObject)
    }
  }
  if (problems.length > 0) throw new Failure(problems.join('\n'))
  return objects
}

/**
 * YAML as the worker reads it: 1.2, no key twice, no aliases.
 *
 * @param name for messages
 * @returns the documents that are not empty
 * @throws Failure
 */
export function parseDocuments(text: string, name: string): { where: string; value: unknown }[] {
  try {
    const documents = parseAllDocuments(text, { version: '1.2', schema: 'core', strict: true, uniqueKeys: true })
    if (!Array.isArray(documents)) return []
    return documents
      .map((document, index) => {
        const where = `${name}, document ${index + 1}`
        const [error] = [...document.errors, ...document.warnings]
        // The code alone: the message of the parser repeats the line, which may hold a secret.
        if (error) throw new Failure(`${where}: not YAML: ${error.code} at line ${error.linePos?.[0].line ?? '?'}`)
        try {
          return { where, value: document.toJS({ maxAliasCount: 0 }) as unknown }
        } catch (error) {
          if (error instanceof ReferenceError) throw new Failure(`${where}: uses an alias`)
          throw error
        }
      })
      .filter(({ value }) => value !== null)
  } catch (error) {
    if (error instanceof Failure) throw error
    // The parser is recursive.
    throw new Failure(`${name}: ${error instanceof RangeError ? 'nested too deeply' : 'not YAML'}`)
  }
}

function problemOf(value: unknown, before: readonly ManifestObject[]): string | null {
  if (!isManifestObject(value)) return 'is no object with apiVersion, kind, metadata.name and spec'
  const { kind } = value
  const { name } = value.metadata
  if (kind === 'Admin')
    return `Admin/${printable(name)}: is for the deployed manifest alone, where no admin can change it`
  if (!APPLICABLE_KINDS.includes(kind)) return `${printable(kind)} is no kind: ${APPLICABLE_KINDS.join(', ')}`
  if (before.some((other) => other.kind === kind && other.metadata.name === name))
    return `${kind}/${printable(name)} is there twice`
  return null
}
