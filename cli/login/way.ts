/** How to ask a person to log in: what this machine has, and what can be seen from where the person sits. */

import { existsSync } from 'node:fs'
import type { Terminal } from '../terminal.ts'

export const WAYS = ['browser', 'device', 'paste'] as const
export type Way = (typeof WAYS)[number]

/** What is there only in a container, by Docker and by Podman. */
const CONTAINER_FILES = ['/.dockerenv', '/run/.containerenv']

/**
 * @param exists whether there is such a file
 * @returns why no browser of this machine will do; null if one may
 */
export function browserProblem(
  env: Terminal['env'],
  platform: NodeJS.Platform = process.platform,
  exists: (path: string) => boolean = existsSync,
): string | null {
  // Somebody has said which: editors that are connected to another machine do, and see to the way back as well.
  if (env.BROWSER) return null
  if (env.SSH_CONNECTION || env.SSH_TTY) return 'this is an SSH session'
  if (env.WSL_DISTRO_NAME || env.WSL_INTEROP) return 'this is WSL'
  if (env.container || env.KUBERNETES_SERVICE_HOST || CONTAINER_FILES.some((path) => exists(path)))
    return 'this is a container'
  if (platform === 'darwin' || platform === 'win32') return null
  return env.DISPLAY || env.WAYLAND_DISPLAY ? null : 'there is no display'
}
