/** An agent in this process, with an issuer and a clock that do what a test tells them. */

import { join } from 'node:path'
import type { Client } from '@connectrpc/connect'
import { afterEach, beforeEach, expect } from 'vitest'
import { type Agent, startAgent } from '../../cli/workload_api/agent.ts'
import type { SpiffeWorkloadAPI } from '../../cli/workload_api/workloadapi_pb.ts'
import { Folder } from './cli.ts'
import { FakeIssuer, FakeTrustDomain } from './fake_issuer.ts'
import { ManualClock } from './manual_clock.ts'
import { Held, workloadApiClient } from './workload_api_client.ts'

export class TestAgent {
  readonly clock = new ManualClock()
  readonly issuer: FakeIssuer
  readonly socket: string
  readonly lines: string[] = []
  readonly client: Client<typeof SpiffeWorkloadAPI>
  #agent: Agent | null = null
  readonly #streams: Held<unknown>[] = []

  constructor(own: FakeTrustDomain, folder: string) {
    this.issuer = new FakeIssuer(own, this.clock)
    this.socket = join(folder, 'agent.sock')
    this.client = workloadApiClient(this.socket)
  }

  /** Chance is always in the middle, so what lives from now to then is renewed half way. */
  async start(...spiffeIds: readonly string[]): Promise<this> {
    const { clock, issuer: doors, socket } = this
    this.#agent = await startAgent({
      ...{ doors, socket, spiffeIds, clock, random: () => 0.5 },
      write: (text) => this.lines.push(text) > 0,
    })
    return this
  }

  get events(): Record<string, unknown>[] {
    return this.lines.map((line) => JSON.parse(line))
  }

  hold<Message>(open: ConstructorParameters<typeof Held<Message>>[0]): Held<Message> {
    const held = new Held<Message>(open)
    this.#streams.push(held)
    return held
  }

  /** Lets time pass until something is so. */
  async until(look: () => unknown, stepMs = 1000): Promise<void> {
    await expect
      .poll(
        () => {
          if (look()) return true
          this.clock.advance(stepMs)
          return false
        },
        { interval: 5 },
      )
      .toBe(true)
  }

  async stop(): Promise<void> {
    for (const held of this.#streams.splice(0)) held.close()
    await this.stopAlone()
  }

  /** Its callers stay. */
  async stopAlone(): Promise<void> {
    const stopped = this.#agent?.stop()
    this.#agent = null
    // Who does not end in time is ended.
    const ending = setInterval(() => this.clock.advance(1000), 20)
    await stopped
    clearInterval(ending)
  }
}

/** @returns the agent of the test that runs */
export function testAgents(): () => TestAgent {
  let own: FakeTrustDomain | undefined
  let folder: Folder
  let agent: TestAgent
  beforeEach(async () => {
    own = await FakeTrustDomain.create('example.org')
    folder = new Folder()
    agent = new TestAgent(own, folder.path)
  })
  afterEach(async () => {
    await agent.stop()
    folder.remove()
  })
  return () => agent
}
