/** Scripts with which shells complete a command line: all that can be said of it stands in them, so no program is started for a key. */

import type { Command, Option } from 'commander'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

/** A command, or a group of them. */
interface Entry {
  /** Behind the program's name: `['revoke', 'key']`. */
  readonly path: readonly string[]
  readonly description: string
  readonly commands: readonly Command[]
  readonly options: readonly Option[]
  /** What stands where an argument is due. */
  readonly choices: readonly string[]
}

/**
 * @param program with all its commands
 * @returns the script, for the shell to read when it starts
 */
export function completionScript(shell: Shell, program: Command): string {
  const entries = entriesOf(program, [])
  return shell === 'fish' ? fish(program.name(), entries) : bash(program.name(), entries, shell === 'zsh')
}

function entriesOf(command: Command, path: readonly string[]): Entry[] {
  const { commands } = command
  return [
    {
      path,
      description: command.description(),
      commands,
      options: command.options.filter((option) => option.long !== undefined),
      choices: command.registeredArguments.flatMap((argument) => argument.argChoices ?? []),
    },
    ...commands.flatMap((child) => entriesOf(child, [...path, child.name()])),
  ]
}

/** Whether a file is due behind the option. */
function takesFile({ flags }: Option): boolean {
  return /<file>$/.test(flags)
}

/** zsh reads it as well, by its own `bashcompinit`. */
function bash(name: string, entries: readonly Entry[], zsh: boolean): string {
  const identifier = `_${name.replace(/\W/g, '_')}`
  const paths = entries.slice(1).map(({ path }) => quote(path.join(' ')))
  const values = entries.flatMap(({ path, options }) =>
    options
      .filter(({ flags }) => flags.includes('<'))
      .flatMap(({ long, short, argChoices = [] }) =>
        [long, short]
          .filter((flag) => flag !== undefined)
          .map((flag) => `    ${quote(`${path.join(' ')} ${flag}`)}) words=${quote(argChoices.join(' '))} ;;`),
      ),
  )
  const words = entries.map(
    ({ path, commands, options, choices }) =>
      `    ${quote(path.join(' '))}) words=${quote(
        [...commands.map((command) => command.name()), ...choices, ...options.map(({ long }) => long), '--help'].join(
          ' ',
        ),
      )} ;;`,
  )
  return `${zsh ? 'autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n' : ''}${identifier}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} path='' words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${path:+$path }\${COMP_WORDS[i]}" in
      ${paths.join('|')}) path="\${path:+$path }\${COMP_WORDS[i]}" ;;
    esac
  done
  case "$path" in
${words.join('\n')}
  esac
  # Behind an option that has a value it is that. If nothing comes to mind, the shell looks for files.
  case "$path $previous" in
${values.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F ${identifier} ${name}
`
}

function fish(name: string, entries: readonly Entry[]): string {
  const identifier = `__${name.replace(/\W/g, '_')}_at`
  const paths = entries.slice(1).map(({ path }) => quote(path.join(' ')))
  const lines = entries.flatMap(({ path, commands, options, choices }) => {
    const here = `complete -c ${name} -n ${quote(`${identifier} ${quote(path.join(' '))}`)}`
    return [
      ...commands.map((command) => `${here} -a ${command.name()} -d ${quote(command.description())}`),
      ...choices.map((choice) => `${here} -a ${choice}`),
      ...options.map((option) => {
        const long = ` -l ${option.long?.slice(2)}`
        const short = option.short ? ` -s ${option.short.slice(1)}` : ''
        const value = option.argChoices
          ? ` -x -a ${quote(option.argChoices.join(' '))}`
          : takesFile(option)
            ? ' -r -F'
            : option.flags.includes('<')
              ? ' -x'
              : ''
        return `${here}${long}${short}${value} -d ${quote(option.description)}`
      }),
    ]
  })
  return `function ${identifier}
  set -l path
  for word in (commandline -opc)[2..]
    if contains -- (string join -- ' ' $path $word) ${paths.join(' ')}
      set -a path $word
    end
  end
  test "$path" = "$argv[1]"
end
complete -c ${name} -f
${lines.join('\n')}
`
}

/** In single quotes, as all three shells read it: there is no backslash in what we say. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
