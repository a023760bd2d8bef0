/** Scheduling of server starts: runs that do not overlap, and a limit on automatic restarts after crashes. */

/** Runs one job at a time. Requests during a run share the single run that follows it. */
export class CoalescedJob {
  private running: Promise<void> | undefined;
  private waiting: Promise<void> | undefined;

  constructor(private readonly job: () => Promise<void>) {}

  /** Resolves when a run that began after this call has finished. */
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

/** Limits automatic restarts: one delay per crash within the time window, then no further restart. */
export class CrashBudget {
  private readonly times: number[] = [];

  constructor(
    /** Delays before the first, second, … restart, in ms. */
    private readonly backoff: readonly number[] = [500, 2000, 8000],
    /** Crashes older than this many ms do not count. */
    private readonly window = 180_000,
  ) {}

  /** Count a crash at `now` (ms). Returns the delay in ms before the next start, or undefined to give up. */
  recordCrash(now: number): number | undefined {
    this.times.push(now);
    while (now - (this.times[0] ?? now) > this.window) this.times.shift();
    return this.backoff[this.times.length - 1];
  }

  /** Forget all crashes, because the user requested a start. */
  reset(): void {
    this.times.length = 0;
  }
}
