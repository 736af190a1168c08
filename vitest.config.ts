import { cloudflareTest } from '@cloudflare/vitest-plugin'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    projects: [
      {
        // Everything that the worker is made of, inside the runtime that it is made for. The settings are those of
        // wrangler.toml but for no_nodejs_compat, which vitest itself can't do with.
        plugins: [
          cloudflareTest({
            main: './test/worker/entry.ts',
            miniflare: {
              compatibilityDate: '2026-11-01',
              modulesRules: [{ type: 'Text', include: ['**/*.yaml'] }],
              durableObjects: {
                KEY_STATE: { className: 'KeyState', useSQLite: true },
                FEDERATION_STATE: { className: 'FederationState', useSQLite: true },
                TOKEN_STATE: { className: 'TokenState', useSQLite: true },
                POLICY_STATE: { className: 'PolicyState', useSQLite: true },
              },
            },
          }),
        ],
        test: {
          name: 'workerd',
          include: ['test/{worker,keys}/**/*.test.ts'],
          // A machine that builds something else meanwhile stalls for longer than one would think.
          testTimeout: 60_000,
          hookTimeout: 60_000,
          isolate: false,
          // One module for each package: hundreds of small files cost every test file seconds.
          deps: {
            optimizer: {
              ssr: {
                enabled: true,
                include: [
                  '@abraham/reflection',
                  '@aws-sdk/client-kms',
                  '@peculiar/x509',
                  'aws4fetch',
                  'hono',
                  'ipaddr.js',
                  'jose',
                  'yaml',
                  'zod/mini',
                ],
              },
            },
          },
        },
      },
      {
        // The command line, the repository itself, and the built worker as a black box.
        test: {
          name: 'node',
          include: ['test/*.test.ts', 'test/{cli,e2e,scripts}/**/*.test.ts'],
          expect: { poll: { timeout: 30_000, interval: 100 } },
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        // What needs more than Node and npm: run by `npm run test:all`.
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          // Most of them wait for something most of the time.
          maxWorkers: 2,
          expect: { poll: { timeout: 60_000, interval: 250 } },
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
})
