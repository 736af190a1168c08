/** What `--help` says. */

import type { Command } from 'commander'
import { beforeAll, describe, expect, test } from 'vitest'
import { CREDENTIALS } from '../../cli/commands/credential.ts'
import { namedValues, parseOptions } from '../../cli/credential.ts'
import { commandsOf } from '../../cli/examples.ts'
import { COMMANDS, loadProgram } from '../../cli/main.ts'
import { cli } from '../support/cli.ts'

let commands: readonly [string, Command][]

beforeAll(async () => {
  const silent = { print: () => {}, say: () => {} }
  commands = commandsOf(await loadProgram(Object.keys(COMMANDS), silent as never), '')
})

test('every command has examples, and each is understood', async () => {
  expect(commands.length).toBeGreaterThan(25)
  for (const [path, command] of commands) {
    const { stdout } = await cli([...path.split(' '), '--help'])
    const examples = [...stdout.matchAll(/^ {2}\$ spiffe-edge (.*)$/gm)].map(([, line]) => line as string)
    expect([path, examples.length > 0]).toEqual([path, true])
    for (const line of examples) {
      // As a shell takes it apart: there are double quotes, and answers that go into files.
      const words = [...line.replace(/ [<>] \S+$/, '').matchAll(/"([^"]*)"|(\S+)/g)].map(
        ([, quoted, word]) => quoted ?? word,
      )
      const [verbs, argv] = [path.split(' '), words as string[]]
      expect(argv.slice(0, verbs.length)).toEqual(verbs)
      const { operands, unknown } = command.parseOptions(argv.slice(verbs.length))
      expect([line, unknown]).toEqual([line, []])
      const wanted = command.registeredArguments.filter(({ required }) => required).length
      expect([line, operands.length >= wanted && operands.length <= command.registeredArguments.length]).toEqual([
        line,
        true,
      ])
      const missing = command.options.filter(
        (option) => option.mandatory && command.getOptionValue(option.attributeName()) === undefined,
      )
      expect([line, missing.map(({ flags }) => flags)]).toEqual([line, []])
    }
  }
})

describe.each(Object.entries(CREDENTIALS))('the two readers of the options of credential %s', (name, load) => {
  test('read every one of them alike', async () => {
    const { options } = await load()
    for (const [option, { value, multiple }] of Object.entries(options)) {
      const [, command] = commandsOf(await loadProgram(['credential'], {} as never), '').find(
        ([path]) => path === `credential ${name}`,
      ) as [string, Command]
      const argv = value ? [`--${option}`, 'one', ...(multiple ? [`--${option}=two`] : [])] : [`--${option}`]
      const read = parseOptions(argv, options)
      expect(read).toEqual({ [option]: value ? (multiple ? ['one', 'two'] : 'one') : true })
      command.parseOptions(argv)
      expect(namedValues(command, command.opts())).toEqual(read)
    }
  })

  test.each([['--nonsense'], ['operand'], ['--help'], ['--timeout']])('%s is for commander', async (argument) => {
    const { options } = await load()
    expect(parseOptions([argument], options)).toBeNull()
  })
})
