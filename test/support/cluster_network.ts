/**
 * A network in the place of `fetch`, with nothing in it but what a test puts there. Requests and answers are real ones,
 * so what goes wrong goes wrong as it does on the wire.
 */

/** @param request as it was sent; its signal ends when the caller has lost patience */
export type Answer = (request: Request) => Response | Promise<Response>

export class Network {
  /** URLs that were asked for, oldest first, whether or not there was an answer. */
  readonly requests: string[] = []
  readonly #answers = new Map<string, Answer>()

  /** Puts something at `url`, in the place of what was there. */
  serve(url: string, answer: Answer): void {
    this.#answers.set(url, answer)
  }

  /** For `vi.stubGlobal('fetch', …)`. */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init)
    this.requests.push(request.url)
    request.signal.throwIfAborted()
    const answer = this.#answers.get(request.url)
    if (!answer) throw new TypeError('Network connection lost.')
    const response = await answer(request)
    if (request.redirect === 'manual' || ![301, 302, 303, 307, 308].includes(response.status)) return response
    return this.fetch(new URL(response.headers.get('location') ?? '', request.url), init)
  }
}

export function json(value: unknown): Answer {
  return () => Response.json(value)
}

export function text(body: string | Uint8Array<ArrayBuffer>, contentType = 'application/json', status = 200): Answer {
  return () => new Response(body, { status, headers: { 'content-type': contentType } })
}

export function redirect(status: number, location: string): Answer {
  return () => new Response(null, { status, headers: { location } })
}

/** Never answers. */
export const hang: Answer = async ({ signal }) => await untilAborted(signal)

/** Begins to answer, and never ends. */
export const hangInBody: Answer = ({ signal }) =>
  new Response(
    new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(new TextEncoder().encode('{"keys":['))
        await untilAborted(signal).catch((reason) => controller.error(reason))
      },
    }),
  )

/** Breaks off in the middle. */
export const breakOff: Answer = () =>
  new Response(
    new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"keys":['))
        controller.error(new TypeError('Network connection lost.'))
      },
    }),
  )

/** An answer without end, which counts how much of it was taken. */
export function endless(chunk = new TextEncoder().encode(' '.repeat(65_536))): { answer: Answer; taken(): number } {
  let taken = 0
  const answer = () =>
    new Response(
      new ReadableStream<Uint8Array>({
        pull(controller) {
          taken += chunk.length
          controller.enqueue(chunk.slice())
        },
      }),
    )
  return { answer, taken: () => taken }
}

/** Answers as `answer` does, but not before it is released. */
export function held(answer: Answer): { answer: Answer; release(): void } {
  const { promise, resolve } = Promise.withResolvers<void>()
  return {
    async answer(request) {
      await promise
      return answer(request)
    },
    release: () => resolve(),
  }
}

/** Takes the place of `AbortSignal.timeout`, so that a test decides when the time is up. */
export class Patience {
  /** Milliseconds that were asked for, oldest first. */
  readonly asked: number[] = []
  readonly #controllers: AbortController[] = []

  readonly timeout = (milliseconds: number): AbortSignal => {
    const controller = new AbortController()
    this.asked.push(milliseconds)
    this.#controllers.push(controller)
    return controller.signal
  }

  end(): void {
    for (const controller of this.#controllers) controller.abort(new DOMException('timed out', 'TimeoutError'))
  }
}

async function untilAborted(signal: AbortSignal): Promise<never> {
  return await new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason))
  })
}
