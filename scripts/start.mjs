// `npm start`: the development build in plain workerd, on embedded defaults. PORT, STATE (a folder) and the worker's own
// variables may say otherwise.
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { build } from './build.mjs'

const port = process.env.PORT ?? '8787'
const state = process.env.STATE ?? '.state'
const trustDomain = process.env.TRUST_DOMAIN ?? 'example.org'
const issuer = process.env.ISSUER ?? `http://127.0.0.1:${port}`

build('development')
const objects = resolve(state, 'objects')
mkdirSync(objects, { recursive: true, mode: 0o700 })
// A second process on the same storage would run, and each would lose what the other writes (T-20). workerd does not look;
// a lock of SQLite's is the operating system's, and gone with this process however it ends.
const lock = new DatabaseSync(join(state, 'lock'))
try {
  lock.exec('pragma locking_mode = exclusive; begin exclusive')
} catch {
  console.error(`${resolve(state)} is in use by another process. Set STATE to another folder.`)
  process.exit(1)
}

// Not node_modules/.bin/workerd, which is a Node wrapper and would leave workerd behind when it is ended.
const { default: workerd } = createRequire(import.meta.url)('workerd')
const child = spawn(
  workerd,
  [
    'serve',
    'deploy/workerd/development.capnp',
    `--socket-addr=http=127.0.0.1:${port}`,
    `--directory-path=state=${objects}`,
    '--control-fd=3',
  ],
  {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    env: {
      ...process.env,
      ISSUER: issuer,
      TRUST_DOMAIN: trustDomain,
      SIGNING_KEY: process.env.SIGNING_KEY ?? 'local:demo',
      CA_KEY: process.env.CA_KEY ?? 'local:ca',
    },
  },
)
child.stdio[3].once('data', () => {
  console.log(`
spiffe-edge runs for development, with a demo cluster.

  issuer  ${issuer}
  state   ${resolve(state)} (delete it to start anew)

Try, in another terminal:

  POD_TOKEN=$(curl -s ${issuer}/demo/token)

  curl -s ${issuer}/token \\
    --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \\
    --data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:jwt \\
    --data-urlencode subject_token="$POD_TOKEN" \\
    --data-urlencode audience=k8s > answer.json

  npm run --silent verify -- --issuer ${issuer} --trust-domain ${trustDomain} --audience k8s < answer.json
`)
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill('SIGTERM'))
child.on('exit', (code, signal) => {
  lock.close()
  process.exit(code ?? (signal === 'SIGTERM' ? 0 : 1))
})
