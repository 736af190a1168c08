import type { Command } from 'commander'

/** @returns the command that other commands stand under: made once, whichever of them comes first */
export function group(program: Command, name: string, description: string): Command {
  return program.commands.find((command) => command.name() === name) ?? program.command(name).description(description)
}
