/**
 * An STS that lives in `fetch`, and changes the tokens of a cluster into sessions, with trouble on request.
 *
 * @example
 * vi.stubGlobal('fetch', kms.fetch)
 * const sts = new StsStub()
 * vi.stubGlobal('fetch', sts.fetch)
 * sts.tokens = ['header.payload.signature']
 */

const ORIGIN = 'https://sts.test'

export const ROLE_ARN = 'arn:aws:iam::111122223333:role/issuer-secret'

/** @param answer what the stub would say without trouble */
export type StsTrouble = (answer: () => string, signal: AbortSignal) => Promise<Response>

export class StsStub {
  /** The tokens that it believes. */
  tokens: readonly string[] = []
  lifetimeSeconds = 3600
  trouble: StsTrouble | null = null
  /** All that has been asked, oldest first, refused or not. */
  readonly requests: { readonly form: Readonly<Record<string, string>>; readonly headers: Headers }[] = []
  /** By it whoever asks is told which session is which: the first has 1. */
  sessions = 0

  readonly #otherFetch = globalThis.fetch

  /** Takes the place of the global `fetch`. Requests for other hosts go where they would have gone. */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init)
    if (new URL(request.url).origin !== ORIGIN) return await this.#otherFetch(input, init)
    const { signal, headers } = request
    signal.throwIfAborted()
    const body = new TextDecoder().decode(await request.arrayBuffer())
    const form = Object.fromEntries(new URLSearchParams(body)) as Record<string, string>
    this.requests.push({ form, headers })
    if (this.trouble) return await this.trouble(() => this.#session(form), signal)
    if (!this.tokens.includes(form.WebIdentityToken ?? '')) return stsError('InvalidIdentityToken')
    return new Response(this.#session(form), { headers: { 'content-type': 'text/xml' } })
  }

  #session({ RoleArn = '', RoleSessionName = '' }: Record<string, string>): string {
    const number = ++this.sessions
    return `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Audience>sts.amazonaws.com</Audience>
    <AssumedRoleUser>
      <AssumedRoleId>AROAEXAMPLE:${RoleSessionName}</AssumedRoleId>
      <Arn>${RoleArn.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/${RoleSessionName}</Arn>
    </AssumedRoleUser>
    <Provider>arn:aws:iam::111122223333:oidc-provider/cluster.example</Provider>
    <Credentials>
      <AccessKeyId>${accessKeyId(number)}</AccessKeyId>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE=${number}</SecretAccessKey>
      <SessionToken>${sessionToken(number)}</SessionToken>
      <Expiration>${new Date(Date.now() + this.lifetimeSeconds * 1000).toISOString()}</Expiration>
    </Credentials>
    <SubjectFromWebIdentityToken>system:serviceaccount:spiffe-edge:issuer</SubjectFromWebIdentityToken>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>
`
  }
}

export function accessKeyId(session: number): string {
  return `ASIAEXAMPLE${session}`
}

export function sessionToken(session: number): string {
  return `FwoGZXIvYXdz/EXAMPLE+${session}==`
}

/** An error as STS words it, with a message that tells what must not get out. */
export function stsError(code: string, status = 400): Response {
  const text = `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>Sender</Type><Code>${code}</Code><Message>${ROLE_ARN} may not do that</Message></Error>
  <RequestId>4f9b1f0c-EXAMPLE</RequestId>
</ErrorResponse>
`
  return new Response(text, { status, headers: { 'content-type': 'text/xml' } })
}
