/** How a person is asked: what the session has decides, and each reason is said. */

import { describe, expect, test } from 'vitest'
import { chooseWay } from '../../../cli/login/prompt.ts'
import type { LoginSettings } from '../../../cli/login/settings.ts'
import { browserProblem } from '../../../cli/login/way.ts'

const none = () => false

describe('whether a browser of this machine will do', () => {
  test.each([
    ['X11', { DISPLAY: ':0' }, null],
    ['Wayland', { WAYLAND_DISPLAY: 'wayland-0' }, null],
    ['neither', {}, 'there is no display'],
    ['SSH', { SSH_CONNECTION: '1 2 3 4', DISPLAY: 'localhost:10.0' }, 'this is an SSH session'],
    ['SSH, of which sudo has left the terminal', { SSH_TTY: '/dev/pts/1', DISPLAY: ':0' }, 'this is an SSH session'],
    ['WSL', { WSL_DISTRO_NAME: 'Debian', DISPLAY: ':0' }, 'this is WSL'],
    ['a container that says so', { container: 'podman', DISPLAY: ':0' }, 'this is a container'],
    ['a pod', { KUBERNETES_SERVICE_HOST: '10.0.0.1' }, 'this is a container'],
    ['an editor that brings its own', { SSH_CONNECTION: '1 2 3 4', BROWSER: '/vscode/helper' }, null],
  ])('%s', (_, env, expected) => {
    expect(browserProblem(env, 'linux', none)).toBe(expected)
  })

  test.each(['/.dockerenv', '/run/.containerenv'])('%s is there', (file) => {
    expect(browserProblem({ DISPLAY: ':0' }, 'linux', (path) => path === file)).toBe('this is a container')
  })

  test.each(['darwin', 'win32'] as const)('%s has one without DISPLAY', (platform) => {
    expect(browserProblem({}, platform, none)).toBeNull()
  })
})

describe('the way', () => {
  const choose = (way: LoginSettings['way'], hasDeviceFlow: boolean, interactive: boolean, env: object) =>
    chooseWay({ way } as LoginSettings, { hasDeviceFlow }, interactive, { env: { ...env } } as never)
  const SSH = { SSH_CONNECTION: '1 2 3 4' }
  const DESKTOP = { BROWSER: 'firefox' }

  test.each([
    ['a desktop', null, true, true, DESKTOP, 'browser'],
    ['EX-5: a desktop, and no terminal', null, true, false, DESKTOP, 'browser'],
    ['SSH', null, true, true, SSH, 'device'],
    ['EX-5: SSH, and no terminal: a code needs none', null, true, false, SSH, 'device'],
    ['SSH, and the provider has no device flow', null, false, true, SSH, 'paste'],
    ['asked for, on a desktop', 'device', true, true, DESKTOP, 'device'],
    ['asked for, with SSH', 'browser', true, true, SSH, 'browser'],
    ['asked for, to paste', 'paste', true, true, DESKTOP, 'paste'],
  ] as const)('%s', (_, way, device, interactive, env, expected) => {
    expect(choose(way, device, interactive, env).way).toBe(expected)
  })

  test('the reason is said where it is not the browser, and nobody has asked for that', () => {
    expect(choose(null, true, true, SSH).reason).toBe('this is an SSH session')
    expect(choose(null, false, true, SSH).reason).toMatch(/SSH session, and the provider has no device flow/)
    expect(choose('device', true, true, SSH).reason).toBeNull()
  })

  test.each([
    ['EX-5: to paste needs a terminal', 'paste', true, false, DESKTOP, /needs a terminal/],
    ['a device flow that is not there', 'device', false, true, DESKTOP, /no device flow/],
    ['EX-5: no way at all', null, false, false, SSH, /no way to ask/],
  ] as const)('%s', (_, way, device, interactive, env, message) => {
    expect(() => choose(way, device, interactive, env)).toThrow(message)
  })
})
