export interface LoadReport {
  readonly sent: number;
  readonly failures: { readonly error: unknown; readonly elapsed: number }[];
  /** Milliseconds of the duration in which the machine was busy with something else, for 50 or more at a time. */
  readonly stalled: number;
}

/** More calls at once would only show that the machine is too slow. */
const MOST_UNDER_WAY = 200;
const TICK = 5;

/**
 * Starts `perSecond` calls a second for `duration` milliseconds, whether or not those before are done, but for those
 * that would make it more than 200 at once.
 */
export async function load(
  call: () => Promise<unknown>,
  { perSecond, duration, at = {} }: { perSecond: number; duration: number; at?: Record<number, () => void> },
): Promise<LoadReport> {
  const failures: LoadReport['failures'] = [];
  const calls: Promise<void>[] = [];
  let underWay = 0;
  let stalled = 0;
  const startedAt = performance.now();
  let tickedAt = startedAt;
  const events = Object.entries(at);
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const now = performance.now();
      const late = now - tickedAt - TICK;
      if (late >= 50) stalled += late;
      tickedAt = now;
      const elapsed = now - startedAt;
      while (events.length > 0 && Number(events[0]![0]) <= elapsed) events.shift()![1]();
      const due = Math.min(perSecond * duration, elapsed * perSecond) / 1000;
      while (calls.length < due && underWay < MOST_UNDER_WAY) {
        const begun = performance.now();
        underWay++;
        calls.push(
          call()
            .catch((error) => void failures.push({ error, elapsed: performance.now() - begun }))
            .then(() => void underWay--),
        );
      }
      if (elapsed >= duration) {
        clearInterval(timer);
        resolve();
      }
    }, TICK);
  });
  await Promise.all(calls);
  return { sent: calls.length, failures, stalled };
}
