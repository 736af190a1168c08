/**
 * From what is kept to a credential that is good: what is nearly over is refreshed, and where that does not help the person
 * is asked. One process at a time does so; those that come meanwhile are served by what it has got.
 */

import { exchangeToken } from '../exchange.ts'
import type { Credential } from '../exec_credential.ts'
import { Failure } from '../failure.ts'
import { formatTime, printable, type Terminal } from '../terminal.ts'
import { idOf, idOfProvider } from './account_id.ts'
import { BackOff } from './back_off.ts'
import { chooseWay, logIn } from './prompt.ts'
import { Provider, RefreshRefused } from './provider.ts'
import { freshCredential, isFresh, LAST_USE_SECONDS, nameOf, type Session, type WantedSvid } from './session.ts'
import { PLACES, type SessionStore } from './session_store.ts'
import type { LoginSettings } from './settings.ts'
import { socketFolder } from './socket_folder.ts'
import { NOTHING_TO_TELL, type Outcome, takeTurn, waitForTurn } from './turn.ts'

/** The holder of the turn also asks the provider, the keyring and the issuer, besides waiting for the person. */
const MORE_THAN_THE_PERSON_SECONDS = 120

export interface Asked {
  readonly settings: LoginSettings
  /** null: the token itself is the credential. */
  readonly svid: WantedSvid | null
  /** Whether standard input is the person's. */
  readonly interactive: boolean
  /** Whether somebody has asked for a login and nothing else: it is not put off, and what is kept does not do. */
  readonly anew: boolean
}

/** What everybody meets who wants this login, whatever else they want. */
class CommonFailure extends Failure {}

/** @throws Failure */
export async function obtainCredential(asked: Asked, store: SessionStore, terminal: Terminal): Promise<Credential> {
  const { account, timeoutSeconds, keyringOnly } = asked.settings
  const queue: Queue = {
    folder: socketFolder(terminal.env),
    timeoutMs: (timeoutSeconds + MORE_THAN_THE_PERSON_SECONDS) * 1000,
    tell: sayOnce('Another process is logging in already: waiting for it.', terminal),
  }
  for (;;) {
    const turn = await takeTurn(queue.folder, idOf(account), queue.timeoutMs, queue.tell)
    if ('end' in turn) {
      const login = new Login(asked, store, terminal, queue)
      try {
        return await login.run()
      } finally {
        turn.end(login.outcome)
      }
    }
    // Whoever has asked for a login gets one, unless somebody has just made it.
    if (asked.anew && !turn.prompted) continue
    if (turn.failure !== null) throw new Failure(turn.failure)
    const { session } = await store.read(account, keyringOnly)
    const now = terminal.now() / 1000
    // There is no better one than what was got just now.
    const credential = freshCredential(session, nameOf(asked.svid), now, LAST_USE_SECONDS)
    if (credential) return credential
    // The person would be asked again by each of those who have waited.
    if (turn.prompted && !(session && (session.refreshToken !== null || isFresh(session, now, LAST_USE_SECONDS))))
      throw new Failure('another process has logged in, and what it has got cannot be used here')
  }
}

/** Where to wait for others. */
interface Queue {
  readonly folder: string
  readonly timeoutMs: number
  readonly tell: () => void
}

function sayOnce(message: string, { say }: Terminal): () => void {
  let said = false
  return () => {
    if (!said) say(message)
    said = true
  }
}

/** What the one process does that has the turn. */
class Login {
  readonly #asked: Asked
  readonly #store: SessionStore
  readonly #terminal: Terminal
  readonly #queue: Queue
  #outcome = NOTHING_TO_TELL
  #provider: Promise<Provider> | undefined

  constructor(asked: Asked, store: SessionStore, terminal: Terminal, queue: Queue) {
    this.#asked = asked
    this.#store = store
    this.#terminal = terminal
    this.#queue = queue
  }

  /** For those who wait. */
  get outcome(): Outcome {
    return this.#outcome
  }

  async run(): Promise<Credential> {
    try {
      return await this.#obtain()
    } catch (error) {
      if (error instanceof CommonFailure) this.#outcome = { ...this.#outcome, failure: error.message }
      throw error
    }
  }

  async #obtain(): Promise<Credential> {
    const { svid, anew, settings } = this.#asked
    const { session: kept, problem } = await this.#store.read(settings.account, settings.keyringOnly)
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
    let refreshed: Session
    try {
      refreshed = await (await this.#discovered()).refresh(kept)
    } catch (error) {
      if (error instanceof RefreshRefused) {
        this.#terminal.say(`The login is over: ${error.message}.`)
        await this.#keep({ ...kept, refreshToken: null })
        return null
      }
      // The provider may be back before the token is over.
      if (error instanceof Failure && isFresh(kept, this.#now(), LAST_USE_SECONDS)) return kept
      throw forAll(error)
    }
    const session = { ...refreshed, svids: this.#current(kept) }
    // Before it is used: where the provider takes each refresh token once, the old one is worth nothing now.
    await this.#keep(session)
    return session
  }

  async #prompt(): Promise<Session> {
    const { folder, timeoutMs, tell } = this.#queue
    // Another login at this provider may be in the person's browser already.
    const turn = await waitForTurn(folder, idOfProvider(this.#asked.settings.account), timeoutMs, tell)
    try {
      return await this.#ask()
    } finally {
      turn.end(NOTHING_TO_TELL)
    }
  }

  async #ask(): Promise<Session> {
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
      this.#outcome = { failure: null, prompted: true }
      const name = person.name ? ` as ${printable(person.name.slice(0, 100))}` : ''
      this.#terminal.say(
        `Logged in${name}. Kept in ${PLACES[place]}${problem ? `: ${problem}` : ''}; good until ${formatTime(session.expiresAt)}${
          session.refreshToken ? ', and then renewed' : ''
        }.`,
      )
      return session
    } catch (error) {
      if (!asked) throw error
      await backOff.count(this.#now(), false)
      throw forAll(error)
    } finally {
      process.off('SIGINT', interrupted)
    }
  }

  async #exchange(session: Session, svid: WantedSvid): Promise<Credential> {
    const wanted = nameOf(svid) as string
    const { svid: token, expiresAt } = await exchangeToken({ ...svid, subjectToken: session.token })
    const svids = [...this.#current(session).filter((one) => one.wanted !== wanted), { wanted, token, expiresAt }]
    await this.#keep({ ...session, svids })
    return { token, expiresAt }
  }

  #current({ svids }: Session): Session['svids'] {
    return svids.filter((svid) => isFresh(svid, this.#now()))
  }

  /** What cannot be kept is good all the same. */
  async #keep(session: Session): Promise<void> {
    const { account, keyringOnly } = this.#asked.settings
    try {
      await this.#store.write(account, session, keyringOnly)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#terminal.say(`The login is renewed, and that cannot be kept: ${error.message}.`)
    }
  }

  #discovered(): Promise<Provider> {
    const { account, clientSecret } = this.#asked.settings
    this.#provider ??= (async () => {
      const secret = await clientSecret()
      return await Provider.discover(account, secret, this.#terminal.now).catch((error) => {
        throw forAll(error)
      })
    })()
    return this.#provider
  }

  #now(): number {
    return this.#terminal.now() / 1000
  }
}

function forAll(error: unknown): unknown {
  return error instanceof Failure ? new CommonFailure(error.message) : error
}
