// node scripts/proto.ts: makes cli/workload_api/workloadapi_pb.ts of the .proto beside it. Nothing is downloaded.
import { execFileSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'

export const FOLDER = 'cli/workload_api'

/** Throws if buf fails. */
export function generate(out: string = FOLDER): void {
  const template = {
    version: 'v2',
    plugins: [{ local: 'protoc-gen-es', out, opt: ['target=ts', 'import_extension=ts'] }],
  }
  const config = { version: 'v2', modules: [{ path: FOLDER }] }
  execFileSync('buf', ['generate', '--config', JSON.stringify(config), '--template', JSON.stringify(template)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) generate()
