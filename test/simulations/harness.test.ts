import { describe, expect, it } from 'vitest';
import { simulate } from '../../bench/simulations/harness.ts';
import { slowInstance } from '../../bench/simulations/slow-instance.ts';

describe('simulate', () => {
  it('lets hours pass in no time, to the millisecond', async () => {
    const before = performance.now();
    const passed = await simulate(1, async ({ sleep }) => {
      await sleep(3_600_000.25);
      return performance.now();
    });
    expect(passed).toBe(3_600_000.25);
    expect(performance.now() - before).toBeLessThan(1_000);
  });

  it('lets things happen in the order of their times, and of their calls at one time', async () => {
    const order: string[] = [];
    await simulate(1, async ({ later, sleep }) => {
      setTimeout(() => order.push('third'), 20);
      setTimeout(() => order.push('second'), 10);
      later(10, () => order.push('after the second'));
      later(0.5, () => order.push('first'));
      clearTimeout(setTimeout(() => order.push('never'), 15));
      await sleep(30);
    });
    expect(order).toEqual(['first', 'second', 'after the second', 'third']);
  });

  it('has all that an event sets off happen before the next, however many promises deep', async () => {
    const order: string[] = [];
    await simulate(1, async ({ later, sleep }) => {
      later(1, () => {
        let chain = Promise.resolve();
        for (let turn = 0; turn < 1_000; turn++) chain = chain.then(() => {});
        void chain.then(() => order.push('set off'));
      });
      later(1, () => order.push('next'));
      await sleep(2);
    });
    expect(order).toEqual(['set off', 'next']);
  });

  it('repeats intervals until they are cleared', async () => {
    const ticks: number[] = [];
    await simulate(1, async ({ sleep }) => {
      const interval = setInterval(() => {
        if (ticks.push(performance.now()) === 3) clearInterval(interval);
      }, 10);
      await sleep(100);
    });
    expect(ticks).toEqual([10, 20, 30]);
  });

  it('gives time and chance back, also after a failure', async () => {
    const real = [setTimeout, clearTimeout, setImmediate, performance.now, Date.now, Math.random];
    await simulate(1, async () => {});
    await expect(
      simulate(1, async ({ sleep }) => {
        await sleep(1);
        throw new Error('failed');
      }),
    ).rejects.toThrow('failed');
    await expect(
      simulate(1, async ({ later, sleep }) => {
        later(1, () => {
          throw new Error('thrown in an event');
        });
        await sleep(2);
      }),
    ).rejects.toThrow('thrown in an event');
    expect([setTimeout, clearTimeout, setImmediate, performance.now, Date.now, Math.random]).toEqual(real);
  });

  it('says so when a scenario waits for what will never come', async () => {
    await expect(simulate(1, () => new Promise(() => {}))).rejects.toThrow('no event');
  });

  it('does not run two at once', async () => {
    const first = simulate(1, ({ sleep }) => sleep(1));
    await expect(simulate(1, async () => {})).rejects.toThrow('another simulation');
    await first;
  });

  it('gives the same numbers for the same seed, others for another', async () => {
    const run = (seed: number) =>
      slowInstance('peak-ewma', { seed, duration: 3_000, slowFrom: 1_000, slowUntil: 2_000 });
    const numbers = await run(1);
    expect(await run(1)).toEqual(numbers);
    expect(await run(2)).not.toEqual(numbers);
  });
});
