// `npm start`: the development build in plain workerd, on embedded defaults. State stays in .state.
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { build } from './build.mjs'

const port = process.env.PORT ?? '8787'
const issuer = process.env.ISSUER ?? `http://127.0.0.1:${port}`

build('development')
mkdirSync('.state/objects', { recursive: true, mode: 0o700 })

// Not node_modules/.bin/workerd, which is a Node wrapper and would leave workerd behind when it is ended.
const { default: workerd } = createRequire(import.meta.url)('workerd')
const child = spawn(
  workerd,
  ['serve', 'deploy/workerd/development.capnp', `--socket-addr=http=127.0.0.1:${port}`, '--control-fd=3'],
  {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    env: {
      ...process.env,
      ISSUER: issuer,
      TRUST_DOMAIN: process.env.TRUST_DOMAIN ?? 'example.org',
      SIGNING_KEY: process.env.SIGNING_KEY ?? 'local:demo',
    },
  },
)
child.stdio[3].once('data', () => {
  console.log(`
spiffe-edge runs for development, with a demo cluster.

  issuer  ${issuer}
  state   ${resolve('.state')} (delete it to start anew)

Try, in another terminal:

  POD_TOKEN=$(curl -s http://127.0.0.1:${port}/demo/token)
  SVID=$(curl -s http://127.0.0.1:${port}/token --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange --data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:jwt --data-urlencode "subject_token=$POD_TOKEN" --data-urlencode audience=k8s | node -p 'JSON.parse(require("fs").readFileSync(0)).access_token')
  npm run --silent verify -- --issuer ${issuer} --audience k8s "$SVID"
`)
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill('SIGTERM'))
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGTERM' ? 0 : 1)))
