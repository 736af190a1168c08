/** The steps of putting a file into the place of another, each of which is made to fail, or is where the power goes. */

import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { replaceFile } from '../../cli/replace_file.ts'
import { Folder } from '../support/cli.ts'

/** What is called before each step, with its name: `open`, `handle.sync`, … */
const { watcher } = vi.hoisted(() => ({ watcher: { before: (_step: string) => {} } }))
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>()
  type Step = (...args: never[]) => unknown
  const watched =
    (name: string, step: Step): Step =>
    async (...args) => {
      watcher.before(name)
      return step(...args)
    }
  const handle = (file: FileHandle, kind: string) =>
    new Proxy(file, {
      get(target, name) {
        const member = Reflect.get(target, name)
        return typeof member === 'function' ? watched(`${kind}.${String(name)}`, member.bind(target)) : member
      },
    })
  return {
    ...real,
    open: async (path: string, flags: string | number, mode?: number) => {
      const kind = flags === 'wx' ? 'file' : 'folder'
      watcher.before(`${kind}.open`)
      return handle(await real.open(path, flags, mode), kind)
    },
    rename: watched('rename', real.rename as Step),
  }
})

const folder = new Folder()
afterAll(() => folder.remove())
const path = `${folder.path}/authentication.yaml`
const present = () => readdirSync(folder.path)
const mode = () => statSync(path).mode & 0o777

let steps: string[]
beforeEach(() => {
  for (const name of present()) rmSync(`${folder.path}/${name}`, { recursive: true })
  steps = []
  watcher.before = (step) => void steps.push(step)
})

const STEPS = [
  'file.open',
  'file.writeFile',
  'file.stat',
  'file.chmod',
  'file.sync',
  'file.close',
  'rename',
  'folder.open',
  'folder.sync',
  'folder.close',
]

describe('T-13: a file that is replaced', () => {
  test('is on the disk before it takes the name, and its name is on the disk at the end', async () => {
    writeFileSync(path, 'old')
    expect(await replaceFile(path, 'new')).toBe(true)
    expect(steps).toEqual(STEPS)
    expect([readFileSync(path, 'utf8'), present()]).toEqual(['new', ['authentication.yaml']])
  })

  test('is at every moment the old or the new one, whole, with the mode of the old one', async () => {
    writeFileSync(path, 'old '.repeat(100_000))
    chmodSync(path, 0o640)
    const seen: string[] = []
    watcher.before = (step) => {
      const text = readFileSync(path, 'utf8')
      expect([text.length, mode()]).toEqual([400_000, 0o640])
      seen.push(`${text.slice(0, 3)} before ${step}`)
    }
    await replaceFile(path, 'new '.repeat(100_000))
    expect([readFileSync(path, 'utf8').length, mode()]).toEqual([400_000, 0o640])
    const at = STEPS.indexOf('rename')
    expect(seen).toEqual(STEPS.map((step, index) => `${index <= at ? 'old' : 'new'} before ${step}`))
  })

  test.each(STEPS)(
    'and %s fails: is the old or the new one, nothing is left lying about, and it is said',
    async (failing) => {
      writeFileSync(path, 'old')
      watcher.before = (step) => {
        if (step === failing) throw Object.assign(new Error('a message with a secret'), { code: 'EIO' })
      }
      const renamed = STEPS.indexOf(failing) > STEPS.indexOf('rename')
      await expect(replaceFile(path, 'new')).rejects.toMatchObject({
        name: 'Failure',
        message: `${path}: ${renamed ? 'is written, and may not survive a power cut' : 'cannot be written'} (EIO)`,
      })
      expect([readFileSync(path, 'utf8'), present()]).toEqual([renamed ? 'new' : 'old', ['authentication.yaml']])
    },
  )

  test('is left alone where nothing changes: who reads it need not read it again', async () => {
    writeFileSync(path, 'same')
    const { ino, mtimeMs } = statSync(path)
    expect(await replaceFile(path, 'same')).toBe(false)
    expect(steps).toEqual([])
    expect(statSync(path)).toMatchObject({ ino, mtimeMs })
  })

  test('is for its owner alone where there was none', async () => {
    expect(await replaceFile(path, 'new')).toBe(true)
    expect([readFileSync(path, 'utf8'), mode(), present()]).toEqual(['new', 0o600, ['authentication.yaml']])
  })

  test.each([0o600, 0o640, 0o644, 0o400])('keeps the mode %o', async (wanted) => {
    writeFileSync(path, 'old')
    chmodSync(path, wanted)
    await replaceFile(path, 'new')
    expect(mode()).toBe(wanted)
  })

  test.skipIf(process.getuid?.() !== 0)('keeps its owner', async () => {
    writeFileSync(path, 'old')
    const { chownSync } = await import('node:fs')
    chownSync(path, 1234, 2345)
    await replaceFile(path, 'new')
    expect(statSync(path)).toMatchObject({ uid: 1234, gid: 2345 })
  })

  test.each<[string, () => void]>([
    ['a link', () => symlinkSync(`${folder.path}/elsewhere`, path)],
    ['a folder', () => mkdirSync(path)],
  ])('is not %s', async (_, make) => {
    make()
    await expect(replaceFile(path, 'new')).rejects.toMatchObject({ message: `${path}: is no plain file` })
    expect(steps).toEqual([])
  })

  test('is in a folder that is there', async () => {
    await expect(replaceFile(`${folder.path}/nowhere/x`, 'new')).rejects.toMatchObject({ name: 'Failure' })
  })
})
