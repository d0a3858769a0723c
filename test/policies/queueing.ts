import { expect, it } from 'vitest';
import type { Policy } from '../../src/policies/policy.ts';
import { begin, flush, follow } from './helpers.ts';

interface Queueing extends Policy {
  readonly inFlight: number;
  readonly queued: number;
}

/** Holds for every policy with places and a queue; `make` gives one with a single place. */
export function beginsNoneThatWasCancelled(make: (maxQueue: number) => Queueing): void {
  it('does not make a call whose caller cancels just as its turn comes, and the place goes on', async () => {
    const policy = make(2);
    const running = begin(policy);
    const controller = new AbortController();
    const waiting = begin(policy, { signal: controller.signal });
    const next = begin(policy);
    running.operation.resolve('done');
    while (policy.queued === 2) await undefined;
    controller.abort(new Error('user left'));
    await flush();
    expect(waiting.call.outcome).toMatchObject({ ok: false, error: { message: 'user left' } });
    expect([waiting.began, next.began]).toEqual([false, true]);
    next.operation.resolve('done');
    await flush();
    expect(policy).toMatchObject({ inFlight: 0, queued: 0 });
  });

  it.each([0, 1, 2, 3, 4, 5, 6])(
    'never begins cancelled, %i steps after the place came free',
    async (steps) => {
      const policy = make(1);
      const running = begin(policy);
      const controller = new AbortController();
      let beganCancelled = false;
      const waiting = follow(
        policy.execute(
          ({ signal }) => {
            beganCancelled = signal.aborted;
          },
          { signal: controller.signal },
        ),
      );
      running.operation.resolve('done');
      while (policy.queued === 1) await undefined;
      for (let step = 0; step < steps; step++) await undefined;
      controller.abort();
      await flush();
      expect(beganCancelled).toBe(false);
      expect(waiting.outcome).toBeDefined();
      expect(policy.inFlight).toBe(0);
    },
  );
}
