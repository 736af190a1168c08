/** `spiffe-edge completion`: what the shells themselves make of the scripts. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SHELLS } from '../../cli/completion.ts'
import { cli, Folder } from '../support/cli.ts'
import { missing } from '../support/tools.ts'

const folder = new Folder()
const scripts = new Map<string, string>()

beforeAll(async () => {
  for (const shell of SHELLS) {
    const { code, stdout } = await cli(['completion', shell])
    expect(code).toBe(0)
    scripts.set(shell, folder.write(stdout, `completion.${shell}`))
  }
  writeFileSync(`${folder.path}/some-file`, '')
})
afterAll(() => folder.remove())

const ASK: Readonly<Record<string, (line: string) => string[]>> = {
  bash(line) {
    const words = line.split(' ')
    const script = `source ${scripts.get('bash')}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _spiffe_edge; printf '%s\\n' "\${COMPREPLY[@]}"`
    return lines(execFileSync('bash', ['--norc', '-uc', script, 'bash', ...words], { encoding: 'utf8' }))
  },
  fish(line) {
    const script = `source ${scripts.get('fish')}; complete -C ${JSON.stringify(line)}`
    const out = execFileSync('fish', ['--no-config', '-c', script], { encoding: 'utf8', cwd: folder.path })
    return lines(out).map((found) => found.split('\t')[0] ?? '')
  },
  zsh(line) {
    const words = line.split(' ')
    const list = words.map((word) => JSON.stringify(word)).join(' ')
    // What bashcompinit does when the key is pressed. What does not begin with the word is then left out by zsh's compadd.
    const script = `source ${scripts.get('zsh')}; COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; compgen -F _spiffe_edge -- ${JSON.stringify(words.at(-1))}`
    const out = execFileSync('zsh', ['-fc', script], { encoding: 'utf8', env: { ...process.env, HOME: folder.path } })
    return lines(out).filter((found) => found.startsWith(words.at(-1) ?? ''))
  },
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '')
}

describe.each(SHELLS)('%s', (shell) => {
  const ask = (line: string) => ASK[shell]?.(line)

  test.skipIf(shell !== 'bash' && missing(shell)).each([
    ['spiffe-edge revo', ['revoke']],
    ['spiffe-edge revoke k', ['key']],
    ['spiffe-edge credential psat --iss', ['--issuer']],
    ['spiffe-edge kubeconfig workload-api --api-version ', ['v1', 'v1beta1']],
    ['spiffe-edge get --output y', ['yaml']],
    ['spiffe-edge --issuer x get --output y', ['yaml']],
    ['spiffe-edge completion z', ['zsh']],
  ])('%s', (line, expected) => {
    expect(ask(line)).toEqual(expected)
  })
})

test('what cannot be known is not made up', () => {
  expect(ASK.bash?.('spiffe-edge apply -f ')).not.toContain('some-file')
  expect(ASK.bash?.('spiffe-edge verify --issuer h')).toEqual([])
})

test('there is no backslash in a script but those that quote: all shells read the texts alike', async () => {
  for (const shell of ['bash', 'fish']) {
    const { stdout } = await cli(['completion', shell])
    expect(stdout.replaceAll("'\\''", '')).not.toMatch(/\\/)
  }
})

test.each([[[]], [['powershell']], [['bash', 'zsh']]])('%j is not understood', async (argv) => {
  expect(await cli(['completion', ...argv])).toMatchObject({ code: 2, stdout: '' })
})
