import { writeSync } from 'node:fs'

/**
 * Writes to standard output. `process.stdout` does as much, but is a stream that takes as long to set up as a quarter of what Node takes to start,
 * which whoever runs kubectl would wait for each time.
 */
export function writeStandardOutput(text: string): void {
  let bytes = Buffer.from(text)
  try {
    while (bytes.length > 0) bytes = bytes.subarray(writeSync(1, bytes))
  } catch (error) {
    // A reader that has seen enough is no error of ours, but an end.
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') process.exit(1)
    // A pipe that somebody has made non-blocking, and that is full.
    process.stdout.on('error', () => process.exit(1)).write(bytes)
  }
}
