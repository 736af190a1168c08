// node scripts/build_cli.mjs [package] [single-file]: the command line as others install it.
//
//   package      dist/npm: what `npm pack` makes a package of; its libraries are in it, but for the keyring's addon
//   single-file  dist/single-file/spiffe-edge: one executable for this platform, with this Node and that addon inside
//
// Both are CommonJS: to load the first ES module takes Node a quarter of what it takes to start.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join, resolve, sep } from 'node:path'
import { pathToFileURL } from 'node:url'
import { rolldown } from 'rolldown'

const KEYRING = '@napi-rs/keyring'
/** Node's own, and the same for all its versions. */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'

/**
 * What is loaded from the start until a credential that is kept has been printed. It is one file: each one more takes Node half a millisecond, and
 * somebody waits for it on every kubectl.
 */
const START = [
  'cli/(main|credential|exec_credential|failure|issuer|keyring|patience|standard_streams|terminal)\\.ts',
  'cli/commands/(credential|credential_oidc)\\.ts',
  'cli/login/(account|folders|session|session_store|settings|way)\\.ts',
  'worker/(endpoint_url|strict_json)\\.ts',
]

/** What `credential workload-api` needs besides, as one more file. */
const WORKLOAD_API = [
  'cli/(jwt_svid|commands/credential_workload_api)\\.ts',
  'cli/workload_api/(endpoint_socket|fetch_jwt_svid|hpack|http2_call)\\.ts',
  'node_modules/@bufbuild/protobuf/dist/esm/(wire/.*|proto-int64\\.js)',
  'node_modules/jose/dist/webapi/(util/(decode_jwt|base64url|errors)|lib/(buffer_utils|validate))\\.js',
]

const manifest = JSON.parse(readFileSync('package.json', 'utf8'))
const require = createRequire(import.meta.url)

const FORMS = { package: buildPackage, 'single-file': buildSingleFile }

async function bundle(input, folder, options) {
  const bundled = await rolldown({
    input: { main: input },
    platform: 'node',
    external: [KEYRING],
    transform: { define: { 'import.meta.main': 'true' } },
    // The commands are loaded when they are asked for, but what main.ts needs at once, all of them have.
    checks: { ineffectiveDynamicImport: false },
  })
  const { output } = await bundled.write({
    dir: folder,
    format: 'cjs',
    entryFileNames: 'main.cjs',
    chunkFileNames: 'chunks/[name]-[hash].cjs',
    comments: { legal: false, jsdoc: false, annotation: false },
    ...options,
  })
  return output.flatMap((chunk) => Object.keys(chunk.modules ?? {}))
}

function groupOf(name, paths) {
  const path = new RegExp(`/(?:${paths.join('|')})$`)
  return { name, test: (id) => path.test(id.replaceAll('\\', '/')) }
}

async function bundleCommands(folder) {
  const modules = await bundle('cli/main.ts', folder, {
    codeSplitting: { groups: [groupOf('start', START), groupOf('workload_api', WORKLOAD_API)] },
    // What would be the entry does nothing but load this.
    entryFileNames: 'entry.cjs',
    chunkFileNames: ({ name }) => (name === 'start' ? 'main.cjs' : 'chunks/[name]-[hash].cjs'),
    banner: ({ name }) => (name === 'start' ? '#!/usr/bin/env node' : ''),
  })
  rmSync(join(folder, 'entry.cjs'))
  return modules
}

async function buildPackage(folder) {
  const modules = await bundleCommands(folder)
  const { name, version, description, license, dependencies } = manifest
  const own = {
    ...{ name, version, description, license },
    bin: { 'spiffe-edge': 'main.cjs', 'kubectl-spiffe_edge': 'main.cjs' },
    engines: { node: '>=22.13' },
    dependencies: { [KEYRING]: dependencies[KEYRING] },
  }
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(own, null, 2)}\n`)
  chmodSync(join(folder, 'main.cjs'), 0o755)
  copyFileSync('LICENSE', join(folder, 'LICENSE'))
  writeFileSync(join(folder, 'THIRD_PARTY_LICENSES'), licenses(modules))
}

async function buildSingleFile(folder) {
  const making = mkdtempSync(join(folder, 'making-'))
  const modules = await bundleCommands(making)
  const loader = join(making, 'loader')
  await bundle('cli/single_file/main.ts', loader, {})
  const files = [
    join(making, 'main.cjs'),
    ...readdirSync(join(making, 'chunks')).map((file) => join(making, 'chunks', file)),
  ]
  const addon = addonFile(require(`${KEYRING}/package.json`).napi.binaryName)
  const [config, blob] = [join(making, 'sea.json'), join(making, 'blob')]
  const settings = {
    main: join(loader, 'main.cjs'),
    output: blob,
    disableExperimentalSEAWarning: true,
    useCodeCache: true,
    assets: { 'keyring.node': addon, ...Object.fromEntries(files.map((file) => [basename(file), file])) },
  }
  writeFileSync(config, JSON.stringify(settings))
  execFileSync(process.execPath, ['--experimental-sea-config', config], { stdio: ['ignore', 'ignore', 'inherit'] })
  const executable = join(folder, 'spiffe-edge')
  copyFileSync(process.execPath, executable)
  chmodSync(executable, 0o755)
  const { inject } = require('postject')
  await inject(executable, 'NODE_SEA_BLOB', readFileSync(blob), { sentinelFuse: FUSE })
  writeFileSync(join(folder, 'THIRD_PARTY_LICENSES'), licenses([...modules, addon, process.execPath]))
  rmSync(making, { recursive: true })
}

/** The addon of this platform, which npm has chosen. */
function addonFile(name) {
  const folder = resolve('node_modules/@napi-rs')
  for (const entry of readdirSync(folder)) {
    const [file] = readdirSync(join(folder, entry)).filter((one) => one.startsWith(`${name}.`) && one.endsWith('.node'))
    if (file) return join(folder, entry, file)
  }
  throw new Error(`${KEYRING} has no addon for this platform`)
}

/** What the packages of these files ask to be handed on with them. */
function licenses(files) {
  const packages = new Map()
  for (const file of files) {
    const [, path] = /^(.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+)[\\/]/.exec(file) ?? []
    if (path) packages.set(path, [...(packages.get(path) ?? []), file])
  }
  return [...packages]
    .sort()
    .map(([path, its]) => {
      const { name, version, license } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'))
      const texts = readdirSync(path).filter((file) => /^(?:licen[cs]e|notice)/i.test(file))
      const terms = texts.length > 0 ? texts.map((file) => readFileSync(join(path, file), 'utf8').trim()) : heads(its)
      if (terms.length === 0) throw new Error(`${name} says nowhere what it asks for`)
      return `${name} ${version} (${license})\n\n${terms.join('\n\n')}\n`
    })
    .join(`\n${'-'.repeat(80)}\n\n`)
}

/** The comments at the head of files, each once: all that there is where a package has no file for it. */
function heads(files) {
  const comments = files.map((file) => /^(?:\/\/.*\n)+/.exec(readFileSync(file, 'utf8'))?.[0] ?? '')
  return [...new Set(comments.map((comment) => comment.replace(/^\/\/ ?/gm, '').trim()))].filter((text) => text !== '')
}

/** Builds into a folder of its own, which then takes the old one's place. */
export async function buildCli(form) {
  const target = join('dist', form === 'package' ? 'npm' : form)
  mkdirSync('dist', { recursive: true })
  const made = resolve(mkdtempSync(`dist${sep}.making-`))
  try {
    await FORMS[form](made)
    chmodSync(made, 0o755)
    if (existsSync(target)) rmSync(target, { recursive: true })
    renameSync(made, target)
  } finally {
    rmSync(made, { recursive: true, force: true })
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href)
  for (const form of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(FORMS)) await buildCli(form)
