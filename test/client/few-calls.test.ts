import { describe, expect, it } from 'vitest';
import { withService } from '../support/simulated-service.ts';

/** These are fleets of small processes: each sees few calls, and judges by these alone. */
describe.each([1, 3, 10])('a process with 0.4 calls a second to %i instances', (instances) => {
  it('a process with 0.4 calls a second opens its breaker within two minutes if all instances fail', async () => {
    await withService({ instances }, async (simulated) => {
      await simulated.steady(0.4, 300_000);
      for (const instance of simulated.instances) instance.become(503);
      const failing = performance.now();
      await simulated.steady(0.4, 120_000);
      const opened = simulated.breaker.find(({ to }) => to === 'open');
      expect(opened?.at).toBeLessThan(failing + 120_000);
      expect(simulated.breaker.every(({ at }) => at > failing)).toBe(true);
    });
  });
});

describe.each([0.4, 4])('a process with %f calls a second', (rate) => {
  it.each([1, 3, 10])(
    'a process with few calls keeps its breaker closed for an hour while %i instances fail a tenth of them',
    async (instances) => {
      await withService({ instances }, async (simulated) => {
        for (const instance of simulated.instances)
          instance.become(() => (Math.random() < 0.1 ? 503 : 'well'));
        await simulated.steady(rate, 3_600_000);
        expect(simulated.breaker).toEqual([]);
        const failed = simulated.calls.filter(({ error }) => error !== undefined);
        expect(failed.length).toBeLessThan(simulated.calls.length / 100);
      });
    },
  );
});

describe.each([
  [1, 2],
  [2, 3],
])('a process with 2 calls a second, of whose instances %i of %i hang', (hanging, instances) => {
  it('a process with 2 calls a second loses no call while it learns which of its instances hang', async () => {
    await withService({ instances, client: { attemptTimeout: 2_000 } }, async (simulated) => {
      await simulated.steady(2, 60_000);
      for (const instance of simulated.instances.slice(0, hanging)) instance.become('hang');
      await simulated.steady(2, 60_000);
      expect(simulated.calls.filter(({ error }) => error !== undefined)).toEqual([]);
    });
  });
});

describe.each([
  [9, 10],
  [11, 12],
  [14, 16],
  [19, 20],
])('a client that was idle, while %i of its %i instances have died', (dead, instances) => {
  it('a client that was idle keeps its breaker closed while one of its instances is well', async () => {
    for (let seed = 1; seed <= 12; seed++) {
      let spread = seed % 2 === 0 ? 0 : 100;
      await withService(
        { instances, takes: () => 20 + spread * Math.random() },
        async (simulated, { sleep }) => {
          await simulated.burst(40);
          await sleep(11_000 + 2_000 * Math.random());
          spread = 0;
          for (const instance of simulated.instances.slice(0, dead)) instance.become(503);
          await simulated.burst(40);
          await simulated.burst(100);
          expect(simulated.breaker).toEqual([]);
          expect(simulated.calls.filter(({ error }) => error !== undefined)).toEqual([]);
        },
        seed,
      );
    }
  });
});
