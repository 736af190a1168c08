/** Whether a tool that a test needs is absent, as `scripts/test.mjs` found out, which also names what was skipped. */
export function missing(
  tool: 'go' | 'openssl' | 'python' | 'keyring' | 'browser' | 'zsh' | 'fish' | 'strace',
): boolean {
  return (process.env.MISSING_TOOLS ?? '').split(',').includes(tool)
}
