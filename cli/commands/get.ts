/** `spiffe-edge get`: the objects that the worker knows, where each comes from, and whether it is used. */

import { type Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { kindOf } from '../objects/kinds.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { type Terminal, table } from '../terminal.ts'

export function addGet(program: Command, terminal: Terminal): void {
  adminOptions(
    program
      .command('get')
      .description('list objects: clusters, registrations, attestors, bans, revocations, admins or all')
      .argument('[kind]', 'which', 'all')
      .addOption(new Option('-o, --output <format>', 'the objects in full').choices(FORMATS)),
  ).action(async (text: string, options: AdminOptions & { output?: Format }) => {
    const kind = text === 'all' ? null : kindOf(text)
    const client = await openAdminClient(options, terminal)
    const all = (await client.objects()).objects
    const objects = all.filter(({ object }) => kind === null || object.kind === kind)
    if (options.output) return terminal.print(render(objects, options.output))
    if (objects.length === 0) return terminal.say('none')
    const rows = objects.map(({ object, source, status, reason }) => [
      object.kind,
      object.metadata.name,
      source,
      status,
      reason ?? '',
    ])
    terminal.print(table([['KIND', 'NAME', 'SOURCE', 'STATUS', 'REASON'], ...rows]))
  })
}
