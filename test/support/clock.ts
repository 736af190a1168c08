/** A time at which all tests play, in seconds since the epoch. Nothing is special about it. */
export const NOW = 1_795_000_000

/** A clock that stands still until it is told to go on. */
export class Clock {
  seconds: number

  constructor(seconds = NOW) {
    this.seconds = seconds
  }

  /** Bound, to be handed over as `now`. */
  readonly now = (): number => this.seconds

  advance(seconds: number): void {
    this.seconds += seconds
  }
}
