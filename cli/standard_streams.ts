import { writeSync } from 'node:fs'

/**
 * Writes to standard output or standard error, and is done then: the process may end at once. `process.stdout` does as much, but is a stream
 * that takes as long to set up as a quarter of what Node takes to start, which whoever runs kubectl would wait for each time.
 */
export function writeStandard(fd: 1 | 2, text: string): void {
  let bytes = Buffer.from(text)
  while (bytes.length > 0)
    try {
      bytes = bytes.subarray(writeSync(fd, bytes))
    } catch (error) {
      // A reader that has seen enough is no error of ours, but an end.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') process.exit(1)
      // A pipe that somebody has made non-blocking, and that is full.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
}

/**
 * For a program that goes on, whoever reads what it says and whether or not the disk is full.
 *
 * @returns false where some of it is lost
 */
export function writeIfPossible(fd: 1 | 2, text: string): boolean {
  let bytes = Buffer.from(text)
  try {
    while (bytes.length > 0) bytes = bytes.subarray(writeSync(fd, bytes))
    return true
  } catch {
    return false
  }
}
