/** When a job such as starting the server is run again: one at a time, at most one waiting, never in a tight circle. */

/** Runs one job at a time. Whoever asks meanwhile shares the one run that follows. */
export class Restarts {
  private running: Promise<void> | undefined;
  private waiting: Promise<void> | undefined;

  constructor(private readonly job: () => Promise<void>) {}

  /** Resolves when a run that began after this call is over. */
  request(): Promise<void> {
    if (this.running === undefined) return this.run();
    this.waiting ??= this.running.catch(() => undefined).then(() => this.run());
    return this.waiting;
  }

  private run(): Promise<void> {
    this.waiting = undefined;
    this.running = this.job().finally(() => {
      this.running = undefined;
    });
    return this.running;
  }
}

/** How often the server may end by itself before we stop starting it. */
export class CrashBudget {
  private readonly times: number[] = [];

  constructor(
    private readonly backoff: readonly number[] = [500, 2000, 8000],
    private readonly window = 180_000,
  ) {}

  /** It ended at `now`: how many ms to wait before the next start, undefined to give up. */
  spend(now: number): number | undefined {
    this.times.push(now);
    while (now - (this.times[0] ?? now) > this.window) this.times.shift();
    return this.backoff[this.times.length - 1];
  }

  /** The user asked for a start: begin counting anew. */
  reset(): void {
    this.times.length = 0;
  }
}
