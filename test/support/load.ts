export interface LoadReport {
  readonly sent: number;
  readonly failures: { readonly error: unknown; readonly elapsed: number }[];
}

/** Starts `perSecond` calls a second for `duration` milliseconds, whether or not those before are done. */
export async function load(
  call: () => Promise<unknown>,
  { perSecond, duration, at = {} }: { perSecond: number; duration: number; at?: Record<number, () => void> },
): Promise<LoadReport> {
  const failures: LoadReport['failures'] = [];
  const calls: Promise<void>[] = [];
  const startedAt = performance.now();
  const events = Object.entries(at);
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const elapsed = performance.now() - startedAt;
      while (events.length > 0 && Number(events[0]![0]) <= elapsed) events.shift()![1]();
      const due = Math.min(perSecond * duration, elapsed * perSecond) / 1000;
      while (calls.length < due) {
        const begun = performance.now();
        calls.push(
          call().then(
            () => {},
            (error) => void failures.push({ error, elapsed: performance.now() - begun }),
          ),
        );
      }
      if (elapsed >= duration) {
        clearInterval(timer);
        resolve();
      }
    }, 5);
  });
  await Promise.all(calls);
  return { sent: calls.length, failures };
}
