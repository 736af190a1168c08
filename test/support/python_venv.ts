/** Python environments that hold exactly what a list of packages says, each made once. */

import { execFile } from 'node:child_process'
import { cp, readFile, rename, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/**
 * The first time on a machine it takes half a minute and the network, for pip.
 *
 * @param name of the environment, a folder of `build`
 * @param requirements file that names every package with its version
 * @returns the interpreter
 */
export async function pythonWith(name: string, requirements: string): Promise<string> {
  const venv = fileURLToPath(new URL(`../../build/${name}`, import.meta.url))
  const isComplete = async () => {
    const installed = await readFile(`${venv}/requirements.txt`, 'utf8').catch(() => null)
    return installed === (await readFile(requirements, 'utf8'))
  }
  if (await isComplete()) return `${venv}/bin/python`
  const run = promisify(execFile)
  // Made beside its place and moved there whole, so that an interrupted or simultaneous run leaves no half of one.
  const draft = `${venv}.${process.pid}`
  try {
    await run('python3', ['-m', 'venv', draft])
    await run(`${draft}/bin/python`, ['-m', 'pip', 'install', '--quiet', '--no-deps', '--requirement', requirements])
    await cp(requirements, `${draft}/requirements.txt`)
    await rm(venv, { recursive: true, force: true })
    await rename(draft, venv).catch(async (error) => {
      if (!(await isComplete())) throw error
    })
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
  return `${venv}/bin/python`
}
