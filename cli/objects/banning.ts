/** Refusing somebody or something from now on: one object that is applied at once, whatever others apply beside it. */

import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'
import { type AdminClient, type ManifestObject, VersionConflict } from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { printable, type Terminal } from '../terminal.ts'
import { describeChanges } from './changes.ts'
import { API_VERSION } from './kinds.ts'

/** It is often done in haste, beside others. */
const ATTEMPTS = 5

/** Who is banned, as the members of a Ban's `spec`. */
export type Target = Readonly<Record<string, string>>

/** @returns a name that the same target always has */
export function banName(target: Target): string {
  return `ban-${createHash('sha256').update(JSON.stringify(target)).digest('hex').slice(0, 12)}`
}

/**
 * @returns when it is applied, and said so
 * @throws Failure
 */
export async function ban(
  client: AdminClient,
  name: string,
  target: Target,
  reason: string | undefined,
  terminal: Terminal,
): Promise<void> {
  const spec = { ...target, ...(reason !== undefined && { reason }) }
  await refuseFromNowOn(client, { kind: 'Ban', name }, terminal, (present) => {
    if (present) {
      // Writing over another ban would lift it.
      const { reason: _, ...banned } = present.spec
      if (!isDeepStrictEqual(banned, { ...target }))
        throw new Failure(`there is a Ban/${name} already, of something else: give another --name`)
    }
    return spec
  })
}

/**
 * Applies one object, and tries again where somebody else has applied something in between.
 *
 * @param specOf the object's `spec`, from what has its name now, or undefined
 * @throws Failure, and whatever `specOf` throws
 */
export async function refuseFromNowOn(
  client: AdminClient,
  { kind, name }: { readonly kind: string; readonly name: string },
  terminal: Terminal,
  specOf: (present: ManifestObject | undefined) => Readonly<Record<string, unknown>>,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const { version, objects } = await client.objects()
    const present = objects.find(({ object }) => object.kind === kind && object.metadata.name === name)
    const object = { apiVersion: API_VERSION, kind, metadata: { name }, spec: { ...specOf(present?.object) } }
    try {
      const { changes, warnings } = await client.apply({
        objects: [object],
        remove: [],
        dryRun: false,
        ifVersion: version,
      })
      for (const warning of warnings) terminal.say(`warning: ${printable(warning)}`)
      return terminal.print(describeChanges(changes, false))
    } catch (error) {
      if (!(error instanceof VersionConflict) || attempt === ATTEMPTS) throw error
    }
  }
}

/**
 * @param option for messages
 * @returns the SPIFFE ID of a workload
 * @throws UsageError
 */
export function parseSubject(text: string, option: string): string {
  try {
    const id = SpiffeId.parse(text)
    if (id.path === '') throw new UsageError(`${option}: is the whole trust domain`)
    return id.toString()
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
    throw new UsageError(`${option}: ${error.message}`)
  }
}
