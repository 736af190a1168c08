/** `spiffe-edge apply`: makes the objects of files those that the worker decides by. */

import { type Command, Option } from 'commander'
import {
  type AdminClient,
  type AdminOptions,
  adminOptions,
  type ManifestObject,
  type ObjectName,
  openAdminClient,
  type StoredObject,
} from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { describeChanges } from '../objects/changes.ts'
import { readManifestFiles } from '../objects/manifest_file.ts'
import { describeReplay, replay } from '../objects/replay.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { printable, type Terminal } from '../terminal.ts'

interface Options extends AdminOptions {
  readonly filename: readonly string[]
  readonly prune?: true
  readonly dryRun?: true
  readonly auditLog?: string
  readonly output?: Format
}

export function addApply(program: Command, terminal: Terminal): void {
  adminOptions(
    program
      .command('apply')
      .description('make the objects of files those that the worker decides by')
      .requiredOption('-f, --filename <file...>', 'YAML documents or JSON; - is standard input')
      .option('--prune', 'take away what was applied and is in the files no more, except bans and what is revoked')
      .option('--dry-run', 'only say what would change')
      .option('--audit-log <file>', 'with --dry-run: also say for which pods of this log the identity would change')
      .addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (options: Options) => {
    if (options.auditLog !== undefined && !options.dryRun) throw new UsageError('--audit-log needs --dry-run')
    if (options.filename.filter((path) => path === '-').length > 1) throw new UsageError('-f -: only once')
    const objects = await readManifestFiles(options.filename, terminal)
    if (objects.length === 0) throw new Failure('there are no objects in these files')
    await apply(await openAdminClient(options, terminal), objects, options, terminal)
  })
}

/**
 * @returns when it is applied, or would be, and said what
 * @throws Failure
 */
export async function apply(
  client: AdminClient,
  objects: readonly ManifestObject[],
  { prune, dryRun = false, auditLog, output }: Partial<Omit<Options, 'dryRun'>> & { readonly dryRun?: boolean },
  terminal: Terminal,
): Promise<void> {
  const { version, objects: current } = await client.objects()
  const remove = prune ? pruned(current, objects) : []
  const changes = await client.apply({ objects, remove, dryRun, ifVersion: version })
  for (const warning of changes.warnings) terminal.say(`warning: ${printable(warning)}`)
  const effect = auditLog === undefined ? null : await replay(auditLog, client.issuer, current, { objects, remove })
  if (output) terminal.print(render({ ...changes, ...(effect && { replay: effect }) }, output))
  else terminal.print(`${describeChanges(changes.changes, dryRun)}${effect ? describeReplay(effect) : ''}`)
}

/** For the clocks of all who may still take a token. */
const EXPIRED_FOR_SECONDS = 3600

/**
 * Bans and revocations stay: they are made in haste, and are in nobody's files. What has expired has no effect any more. Vault's
 * kinds stay too, unless the files have some: clients of Vault write them.
 */
function pruned(current: readonly StoredObject[], objects: readonly ManifestObject[]): ObjectName[] {
  return current
    .filter(
      ({ source, object }) =>
        source === 'applied' &&
        !revokes(object) &&
        (!object.kind.startsWith('Vault') || objects.some(({ kind }) => kind === object.kind)) &&
        !objects.some(({ kind, metadata }) => kind === object.kind && metadata.name === object.metadata.name),
    )
    .map(({ object }) => ({ kind: object.kind, name: object.metadata.name }))
}

function revokes({ kind, spec }: ManifestObject): boolean {
  if (kind !== 'Revocation') return kind === 'Ban'
  const expired = typeof spec.expiresAt === 'number' && spec.expiresAt + EXPIRED_FOR_SECONDS <= Date.now() / 1000
  return !expired
}
