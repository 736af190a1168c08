/**
 * From what is kept to a credential that is good: what is nearly over is refreshed, and where that does not help the person
 * is asked. One process at a time does so; those that come meanwhile are served by what it has got.
 */

import { exchangeToken } from '../exchange.ts'
import type { Credential } from '../exec_credential.ts'
import { Failure } from '../failure.ts'
import { formatTime, printable, type Terminal } from '../terminal.ts'
import { idOf } from './account_id.ts'
import { BackOff } from './back_off.ts'
import { chooseWay, logIn } from './prompt.ts'
import { Provider, RefreshRefused } from './provider.ts'
import { freshCredential, isFresh, LAST_USE_SECONDS, nameOf, type Session, type WantedSvid } from './session.ts'
import { PLACES, type SessionStore } from './session_store.ts'
import type { LoginSettings } from './settings.ts'
import { socketFolder } from './socket_folder.ts'
import { takeTurn } from './turn.ts'

/** The holder of the turn also asks the provider, the keyring and the issuer, besides waiting for the person. */
const MORE_THAN_THE_PERSON_SECONDS = 120
/** An SVID that is over before it can be used, or a keyring that this process cannot read and that one can. */
const MAX_TURNS_OF_OTHERS = 5

export interface Asked {
  readonly settings: LoginSettings
  /** null: the token itself is the credential. */
  readonly svid: WantedSvid | null
  /** Whether standard input is the person's. */
  readonly interactive: boolean
  /** Whether somebody has asked for a login and nothing else: it is not put off, and what is kept does not do. */
  readonly anew: boolean
}

/** @throws Failure */
export async function obtainCredential(asked: Asked, store: SessionStore, terminal: Terminal): Promise<Credential> {
  const { account, timeoutSeconds } = asked.settings
  const folder = socketFolder(terminal.env)
  let told = false
  const tell = () => {
    if (!told) terminal.say('Another process is logging in already: waiting for it.')
    told = true
  }
  for (let turns = 0; turns < MAX_TURNS_OF_OTHERS; turns++) {
    const timeoutMs = (timeoutSeconds + MORE_THAN_THE_PERSON_SECONDS) * 1000
    const turn = await takeTurn(folder, idOf(account), timeoutMs, tell)
    if ('end' in turn) {
      let failure: string | null = 'the process that was logging in has failed'
      try {
        const credential = await new Login(asked, store, terminal).run()
        failure = null
        return credential
      } catch (error) {
        if (error instanceof Failure) failure = error.message
        throw error
      } finally {
        turn.end(failure)
      }
    }
    if (turn.failure !== null) throw new Failure(turn.failure)
    const { session } = await store.read(account)
    // There is no better one than what was got just now.
    const credential = freshCredential(session, nameOf(asked.svid), terminal.now() / 1000, LAST_USE_SECONDS)
    if (credential) return credential
  }
  throw new Failure('other processes have logged in, and what they have got cannot be used here')
}

/** What the one process does that has the turn. */
class Login {
  readonly #asked: Asked
  readonly #store: SessionStore
  readonly #terminal: Terminal
  #provider: Promise<Provider> | undefined

  constructor(asked: Asked, store: SessionStore, terminal: Terminal) {
    this.#asked = asked
    this.#store = store
    this.#terminal = terminal
  }

  async run(): Promise<Credential> {
    const { svid, anew, settings } = this.#asked
    const { session: kept, problem } = await this.#store.read(settings.account)
    // Somebody may have been here between our first look and our turn.
    const fresh = anew ? null : freshCredential(kept, nameOf(svid), this.#now())
    if (fresh) return fresh
    if (problem) this.#terminal.say(`The login that was kept cannot be used: ${problem}.`)
    const session = (anew ? null : await this.#usable(kept)) ?? (await this.#prompt())
    return svid ? await this.#exchange(session, svid) : session
  }

  /** @returns what is kept, refreshed if it has to be; null if only the person can help */
  async #usable(kept: Session | null): Promise<Session | null> {
    if (!kept || isFresh(kept, this.#now())) return kept
    if (kept.refreshToken === null) return null
    const { account, keyringOnly } = this.#asked.settings
    try {
      const refreshed = await (await this.#discovered()).refresh(kept)
      const session = { ...refreshed, svids: this.#current(kept) }
      // Before it is used: where the provider takes each refresh token once, the old one is worth nothing now.
      await this.#store.write(account, session, keyringOnly)
      return session
    } catch (error) {
      if (error instanceof RefreshRefused) {
        this.#terminal.say(`The login is over: ${error.message}.`)
        await this.#store.write(account, { ...kept, refreshToken: null }, keyringOnly)
        return null
      }
      // The provider may be back before the token is over.
      if (error instanceof Failure && isFresh(kept, this.#now(), LAST_USE_SECONDS)) return kept
      throw error
    }
  }

  async #prompt(): Promise<Session> {
    const { settings, anew, interactive } = this.#asked
    const { account, keyringOnly } = settings
    const backOff = new BackOff(account, this.#terminal.env)
    if (!anew) backOff.check(this.#now())
    // A person who has logged in for nothing is worse than one who was not asked.
    const problem = keyringOnly ? await this.#store.keyringProblem(account) : null
    if (problem) throw new Failure(`${problem}, and --keyring-only is given`)
    const provider = await this.#discovered()
    const way = chooseWay(settings, provider, interactive, this.#terminal)
    let asked = false
    const onAsk = async () => {
      await backOff.count(this.#now(), true)
      asked = true
    }
    // Whoever presses Ctrl-C is there, and may have only changed their mind.
    const interrupted = () => {
      backOff.clear()
      process.kill(process.pid, 'SIGINT')
    }
    process.once('SIGINT', interrupted)
    try {
      const { session, person } = await logIn(provider, settings, way, this.#terminal, onAsk)
      const { place, problem } = await this.#store.write(account, session, keyringOnly)
      backOff.clear()
      const name = person.name ? ` as ${printable(person.name.slice(0, 100))}` : ''
      this.#terminal.say(
        `Logged in${name}. Kept in ${PLACES[place]}${problem ? `: ${problem}` : ''}; good until ${formatTime(session.expiresAt)}${
          session.refreshToken ? ', and then renewed' : ''
        }.`,
      )
      return session
    } catch (error) {
      if (asked) await backOff.count(this.#now(), false)
      throw error
    } finally {
      process.off('SIGINT', interrupted)
    }
  }

  async #exchange(session: Session, svid: WantedSvid): Promise<Credential> {
    const wanted = nameOf(svid) as string
    const { svid: token, expiresAt } = await exchangeToken({ ...svid, subjectToken: session.token })
    const svids = [...this.#current(session).filter((one) => one.wanted !== wanted), { wanted, token, expiresAt }]
    await this.#store.write(this.#asked.settings.account, { ...session, svids }, this.#asked.settings.keyringOnly)
    return { token, expiresAt }
  }

  #current({ svids }: Session): Session['svids'] {
    return svids.filter((svid) => isFresh(svid, this.#now()))
  }

  #discovered(): Promise<Provider> {
    const { account, clientSecret } = this.#asked.settings
    this.#provider ??= (async () => Provider.discover(account, await clientSecret(), this.#terminal.now))()
    return this.#provider
  }

  #now(): number {
    return this.#terminal.now() / 1000
  }
}
