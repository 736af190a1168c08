// A registry that carries only some platforms' optional binaries makes `npm install` write a lockfile without the
// others, and `npm ci` then refuses it ("Missing: X@ from lock file"). This adds the missing optional entries
// (version, os, cpu, libc; no integrity, since they could not be fetched), so that `npm ci` passes everywhere.
import { readFileSync, writeFileSync } from 'node:fs'

const OS = {
  darwin: 'darwin',
  linux: 'linux',
  win32: 'win32',
  windows: 'win32',
  win: 'win32',
  android: 'android',
  freebsd: 'freebsd',
  openharmony: 'openharmony',
  netbsd: 'netbsd',
  openbsd: 'openbsd',
  sunos: 'sunos',
  aix: 'aix',
  wasm32: null,
}
const CPU = {
  arm64: 'arm64',
  aarch64: 'arm64',
  armv7: 'arm',
  x64: 'x64',
  64: 'x64',
  arm: 'arm',
  ia32: 'ia32',
  x86: 'ia32',
  ppc64: 'ppc64',
  s390x: 's390x',
  riscv64: 'riscv64',
  loong64: 'loong64',
  mips64el: 'mips64el',
  wasm32: 'wasm32',
}
const file = process.argv[2] ?? 'package-lock.json'
const lock = JSON.parse(readFileSync(file, 'utf8'))
const pk = lock.packages
let n = 0
for (const [at, p] of Object.entries(pk)) {
  for (const [name, version] of Object.entries(p.optionalDependencies ?? {})) {
    let dir = at
    let found = false
    for (;;) {
      const hit = pk[`${dir ? `${dir}/` : ''}node_modules/${name}`]
      if (hit && /^\d+\.\d+\.\d+/.test(version) && hit.version !== version)
        throw new Error(`${name}: ${hit.version} in the lock, ${at} wants ${version}: pin one of them with overrides`)
      if (hit) {
        found = true
        break
      }
      if (!dir) break
      const i = dir.lastIndexOf('node_modules/')
      dir = i <= 0 ? '' : dir.slice(0, i - 1)
    }
    if (found) continue
    if (!/^\d+\.\d+\.\d+/.test(version)) throw new Error(`${at}: ${name}@${version} is not an exact version`)
    const parts = name.split('/').pop().split('-')
    const os = parts.map((s) => OS[s]).find((s) => s)
    const cpu = parts.map((s) => CPU[s]).find((s) => s)
    if (!os && cpu !== 'wasm32') throw new Error(`cannot tell the platform of ${name}`)
    const e = { version, ...(cpu && { cpu: [cpu] }), ...(p.dev && { dev: true }) }
    if (parts.some((s) => /^musl/.test(s))) e.libc = ['musl']
    else if (parts.some((s) => /^gnu/.test(s))) e.libc = ['glibc']
    e.optional = true
    if (os) e.os = [os]
    pk[`node_modules/${name}`] = e
    console.log('added', name, version, JSON.stringify(e))
    n++
  }
}
lock.packages = Object.fromEntries(Object.entries(pk).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`${n} entries added`)
