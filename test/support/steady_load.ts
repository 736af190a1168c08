/** Clients at a steady pace, each with an SVID of its own, and what became of all of them. */

import { decodeJwt, decodeProtectedHeader } from 'jose'

/** A machine that is slower than the pace gets a slower pace, and the report says so. */
const MAX_UNDER_WAY = 20

export interface SteadyLoadOptions {
  /** Gets an SVID. To reject is to refuse. */
  issue(): Promise<string>
  /** Shows an SVID to whom it is for, and gives the username, or null where that one refuses. */
  use(svid: string, isFirst: boolean): Promise<string | null>
  readonly everyMs: number
  /** Each SVID is used a second time when it is so old, in seconds. */
  readonly againAfter: number
}

export interface LoadReport {
  readonly seconds: number
  /** Of SVIDs, each of which was used at once. */
  readonly issued: number
  /** Of SVIDs that were used a second time. */
  readonly again: number
  /** Of SVIDs that had expired by the time that the answer to their second use was here, which says nothing. */
  readonly late: number
  /** How many SVIDs each key has signed, by `kid`, in the order in which they were first seen. */
  readonly kids: ReadonlyMap<string, number>
  /** What went wrong, each with its `kid` if it has one. */
  readonly refused: readonly { readonly kid: string | null; readonly why: string; readonly at: number }[]
  readonly usernames: ReadonlySet<string>
}

export interface SteadyLoad {
  /** So far. */
  readonly report: LoadReport
  stop(): Promise<LoadReport>
}

export function startSteadyLoad({ issue, use, everyMs, againAfter }: SteadyLoadOptions): SteadyLoad {
  const started = Date.now()
  const kids = new Map<string, number>()
  const usernames = new Set<string>()
  const refused: { kid: string | null; why: string; at: number }[] = []
  const kept: { svid: string; from: number }[] = []
  const underWay = new Set<Promise<void>>()
  const count = { issued: 0, again: 0, late: 0 }

  async function present(svid: string, isFirst: boolean): Promise<void> {
    const { kid = null } = decodeProtectedHeader(svid)
    try {
      const username = await use(svid, isFirst)
      if (username !== null) {
        usernames.add(username)
        count[isFirst ? 'issued' : 'again']++
      } else if (!isFirst && Date.now() / 1000 >= (decodeJwt(svid).exp ?? 0)) count.late++
      else refused.push({ kid, why: isFirst ? 'fresh' : 'used again', at: Date.now() })
    } catch (error) {
      refused.push({ kid, why: String(error), at: Date.now() })
    }
  }

  async function client(): Promise<void> {
    const old = kept[0]
    if (old && Date.now() / 1000 >= old.from) {
      kept.shift()
      await present(old.svid, false)
    }
    let svid: string
    try {
      svid = await issue()
    } catch (error) {
      refused.push({ kid: null, why: String(error), at: Date.now() })
      return
    }
    const { kid = '' } = decodeProtectedHeader(svid)
    kids.set(kid, (kids.get(kid) ?? 0) + 1)
    kept.push({ svid, from: Date.now() / 1000 + againAfter })
    await present(svid, true)
  }

  const timer = setInterval(() => {
    if (underWay.size >= MAX_UNDER_WAY) return
    const one = client().finally(() => underWay.delete(one))
    underWay.add(one)
  }, everyMs)
  const report = () => ({ seconds: (Date.now() - started) / 1000, ...count, kids, refused, usernames })
  return {
    get report() {
      return report()
    },
    async stop() {
      clearInterval(timer)
      await Promise.all(underWay)
      return report()
    },
  }
}

/** One line for whoever reads the log of a test. */
export function describeLoad(name: string, { seconds, issued, again, late, kids, refused }: LoadReport): string {
  const pace = `${issued} SVIDs in ${seconds.toFixed(0)} s (${(issued / seconds).toFixed(1)} a second)`
  return `${name}: ${pace}, ${again} used again, ${late} too late to tell; ${kids.size} keys signed; ${refused.length} refused`
}
