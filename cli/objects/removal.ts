/** Taking away one object that was applied. */

import type { AdminClient, Change, ObjectName } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { printable } from '../terminal.ts'

/**
 * @returns what was deleted
 * @throws VersionConflict, Failure if there is no such object, or it does not come from the admin API
 */
export async function remove(client: AdminClient, { kind, name }: ObjectName): Promise<readonly Change[]> {
  const title = `${kind}/${printable(name)}`
  const { version, objects } = await client.objects()
  const found = objects.filter(({ object }) => object.kind === kind && object.metadata.name === name)
  const [first] = found
  if (!first) throw new Failure(`there is no ${title}`)
  if (!found.some(({ source }) => source === 'applied'))
    throw new Failure(
      first.source === 'manifest'
        ? `${title} is in the deployed manifest: take it out there, and deploy`
        : `${title} comes from ${printable(first.source)}: delete it there`,
    )
  const { changes } = await client.apply({
    objects: [],
    remove: [{ kind, name }],
    dryRun: false,
    ifVersion: version,
  })
  if (!changes.some((change) => change.action === 'delete' && change.kind === kind && change.name === name))
    throw new Failure(`the worker has not deleted ${title}`)
  return changes
}
