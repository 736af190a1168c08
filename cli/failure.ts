/** Why a command ends without having done what it was asked for. Messages are for people and hold no secret. */

/** It was refused or did not work: exit code 1. */
export class Failure extends Error {
  override readonly name = 'Failure'
}

/** It was not understood: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
