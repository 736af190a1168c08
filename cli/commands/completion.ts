/** `spiffe-edge completion`: a script by which a shell completes the commands of this program. */

import { Argument, type Command } from 'commander'
import { completionScript, SHELLS, type Shell } from '../completion.ts'
import type { Terminal } from '../terminal.ts'

export function addCompletion(program: Command, terminal: Terminal): void {
  program
    .command('completion')
    .description('print a script by which a shell completes these commands')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action((shell: Shell) => terminal.print(completionScript(shell, program)))
}
