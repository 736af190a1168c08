// node scripts/build_go.mjs: builds the programs under test/ that embed the real consumers, into build/go.
import { execFileSync } from 'node:child_process'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const KUBERNETES = 'v1.36.3'

const PROGRAMS = [
  { name: 'judge-1.37', folder: 'test/judge', args: ['.'] },
  { name: 'judge-1.36', folder: 'test/judge', args: ['-modfile=go.k8s-1.36.mod', '.'] },
  { name: 'judge-1.35', folder: 'test/judge', args: ['-modfile=go.k8s-1.35.mod', '.'] },
  // One command for both, so that what they share is compiled by one.
  { name: '', folder: 'test/cluster', args: ['.', 'k8s.io/kubernetes/cmd/kubectl'] },
  { name: 'workload-api', folder: 'test/workload_api', args: ['.'] },
  { name: 'vault-peers', folder: 'test/vault', args: ['.'] },
  { name: 'vault-core', folder: 'test/vault/core', args: ['.'] },
  { name: 'exec-plugin', folder: 'test/exec_plugin', args: ['.'] },
  { name: 'go-spiffe-plugin', folder: 'test/exec_plugin', args: ['./plugin'] },
]

/** Throws if a program does not build. What is built already and unchanged costs seconds. */
export function buildGo() {
  for (const { name, folder, args } of PROGRAMS)
    execFileSync(
      'go',
      [
        'build',
        '-trimpath',
        '-ldflags',
        `-s -w -X k8s.io/component-base/version.gitVersion=${KUBERNETES}`,
        '-o',
        `${resolve('build/go')}/${name}`,
        ...args,
      ],
      { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, CGO_ENABLED: '0' } },
    )
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) buildGo()
