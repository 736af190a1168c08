import fc from 'fast-check'
import { expect, test } from 'vitest'
import { UsageError } from '../../../cli/failure.ts'
import { parseEndpointSocket } from '../../../cli/workload_api/endpoint_socket.ts'

const parse = (uri: string) => parseEndpointSocket('SPIFFE_ENDPOINT_SOCKET', uri)

test.each([
  ['unix:///path/to/endpoint.sock', { path: '/path/to/endpoint.sock' }],
  ['unix:/path', { path: '/path' }],
  ['unix:///with space/ü', { path: '/with space/ü' }],
  ['tcp://127.0.0.1:8000', { host: '127.0.0.1', port: 8000 }],
  ['tcp://[::1]:65535', { host: '::1', port: 65535 }],
])('WA-4: %s', (uri, socket) => {
  expect(parse(uri)).toEqual(socket)
})

test.each([
  'unix://host/path',
  'unix://relative',
  'unix:relative',
  'unix://',
  'unix:///',
  'unix:////path',
  'unix:///path?query',
  'unix:///path#fragment',
  'unix:///a%2fb',
  'tcp://localhost:1',
  'tcp://127.0.0.1',
  'tcp://127.0.0.1:1/x',
  'tcp://127.0.0.1:1/',
  'tcp://127.0.0.1:0',
  'tcp://127.0.0.1:65536',
  'tcp://127.0.0.1:1?x',
  'tcp://user@127.0.0.1:1',
  'tcp://::1:1',
  'tcp://[127.0.0.1]:1',
  'tcp://127.1:1',
  'tcp://0x7f.0.0.1:1',
  'http://127.0.0.1:1',
  'UNIX:///path',
  '/bare/path',
  '',
])('§12.5: %s is refused', (uri) => {
  expect(() => parse(uri)).toThrow(UsageError)
})

test('whatever is said to be a socket, it is one or is refused', () => {
  const piece = fc.constantFrom('unix:', 'tcp:', '//', '/', ':', '1', '127.0.0.1', '[::1]', 'a', '?', '#', '\n', '@')
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece).map((pieces) => pieces.join('')),
      ),
      (uri) => {
        try {
          const socket = parse(uri)
          if ('path' in socket) expect(socket.path).toMatch(/^\/[^/]/)
          else expect(socket.port).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError)
          expect((error as Error).message).not.toMatch(/\p{Cc}/u)
        }
      },
    ),
  )
})
