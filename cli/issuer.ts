import { endpointUrlProblem } from '../worker/endpoint_url.ts'
import { UsageError } from './failure.ts'
import type { Terminal } from './terminal.ts'

/**
 * @returns the worker that is meant, by its issuer URL
 * @throws UsageError
 */
export function issuerOf({ issuer: option }: { readonly issuer?: string | undefined }, { env }: Terminal): string {
  const issuer = option ?? env.SPIFFE_EDGE_ISSUER
  if (!issuer) throw new UsageError('which worker? Give --issuer, or set SPIFFE_EDGE_ISSUER')
  const problem = endpointUrlProblem(issuer, true) ?? (issuer.endsWith('/') ? 'ends in a slash' : null)
  if (problem) throw new UsageError(`--issuer: ${problem}`)
  return issuer
}
