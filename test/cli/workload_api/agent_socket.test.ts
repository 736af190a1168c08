/** The agent's socket: whose place it takes, whose it does not, and who may use it. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { listenOnSocket } from '../../../cli/workload_api/agent_socket.ts'
import { Folder } from '../../support/cli.ts'

let folder: Folder
let path: string
const servers: Server[] = []

beforeEach(() => {
  folder = new Folder()
  path = join(folder.path, 'agent.sock')
})
afterEach(async () => {
  for (const server of servers.splice(0)) if (server.listening) await new Promise((closed) => server.close(closed))
  folder.remove()
})

async function listen(at = path): Promise<Server> {
  const server = createServer()
  servers.push(server)
  await listenOnSocket(server, at)
  return server
}

/** Leaves a socket behind as who has been killed does. */
async function leaveBehind(at = path): Promise<void> {
  const script = `require('node:net').createServer().listen(${JSON.stringify(at)}, () => process.kill(process.pid, 'SIGKILL'))`
  await once(spawn(process.execPath, ['-e', script]), 'close')
  expect(lstatSync(at).isSocket()).toBe(true)
}

test('T-25: everybody may use it who gets to its folder, whatever the umask is', async () => {
  const before = process.umask(0o077)
  try {
    await listen()
    expect(process.umask()).toBe(0o077)
  } finally {
    process.umask(before)
  }
  expect(lstatSync(path).mode & 0o777).toBe(0o666)
})

test('one that nobody listens on is replaced', async () => {
  await leaveBehind()
  expect((await listen()).listening).toBe(true)
  expect(readdirSync(folder.path)).toEqual(['agent.sock'])
})

test('one that somebody listens on is left alone', async () => {
  const first = await listen()
  await expect(listen()).rejects.toThrow(/somebody listens there already/)
  expect(first.listening).toBe(true)
  expect(readdirSync(folder.path)).toEqual(['agent.sock'])
})

test('of several that start on one that was left behind, one gets it, and is not robbed of it', async () => {
  for (let round = 0; round < 10; round++) {
    await leaveBehind()
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => listen()))
    const won = outcomes.filter(({ status }) => status === 'fulfilled')
    expect(won).toHaveLength(1)
    await expect(listen()).rejects.toThrow(/somebody listens/)
    for (const server of servers.splice(0)) if (server.listening) await new Promise((closed) => server.close(closed))
  }
})

test.each([
  ['a file', () => writeFileSync(path, 'precious'), /is no socket/],
  ['a folder', () => mkdirSync(path), /is no socket/],
  ['a link, also one to a socket', () => symlinkSync('/dev/log', path), /is no socket/],
])('%s in its place is left alone', async (_, make, message) => {
  make()
  const before = lstatSync(path)
  await expect(listen()).rejects.toThrow(message)
  expect(lstatSync(path).ino).toBe(before.ino)
})

test('a path that is as long as it may be is taken over like any other', async () => {
  const long = join(folder.path, 'x'.repeat(107 - folder.path.length - 1))
  await leaveBehind(long)
  expect((await listen(long)).listening).toBe(true)
})

test('a folder that is not there, and a path that is too long, are failures with a reason', async () => {
  await expect(listen(join(folder.path, 'no/agent.sock'))).rejects.toThrow(/there is no such file/)
  await expect(listen(join(folder.path, 'x'.repeat(108)))).rejects.toThrow(/longer than the path of a socket may be/)
})

test('it is gone when the agent has ended', async () => {
  const server = await listen()
  await new Promise((closed) => server.close(closed))
  expect(readdirSync(folder.path)).toEqual([])
})
