import { describe, expect, it } from 'vitest';
import { AimdLimit } from '../../../src/policies/limits/aimd.ts';
import { sample } from './samples.ts';
import { ServerModel } from './server-model.ts';

describe('AIMD', () => {
  it('AIMD adds one to the limit after a window without a loss', () => {
    expect(new AimdLimit().next(10, sample(1, 10))).toBe(11);
  });

  it('AIMD takes a tenth off after a window with a loss, or another ratio', () => {
    expect(new AimdLimit().next(30, sample(1, 30, 1))).toBe(27);
    expect(new AimdLimit({ backoffRatio: 0.5 }).next(30, sample(undefined, 30, 100))).toBe(15);
  });

  it('AIMD takes latency over its timeout for a loss', () => {
    const limit = new AimdLimit({ timeout: 1_000 });
    expect(limit.next(30, sample(1_000, 30))).toBe(31);
    expect(limit.next(30, sample(1_001, 30))).toBe(27);
  });

  it('AIMD leaves the limit as it is while less than half of it is used', () => {
    const limit = new AimdLimit();
    expect(limit.next(30, sample(1, 14))).toBe(30);
    expect(limit.next(30, sample(1, 15))).toBe(31);
    expect(limit.next(30, sample(1, 1, 1))).toBe(27);
  });

  it('AIMD finds the limit of a server that rejects the rest, and follows as it halves and returns', () => {
    const server = new ServerModel(new AimdLimit(), 20, { workers: 20, queue: 4 });
    for (const workers of [20, 10, 20]) {
      server.workers = workers;
      server.run(20_000);
      const answeredBefore = server.answered;
      for (let look = 0; look < 20; look++) {
        const limit = server.run(500);
        expect(limit).toBeGreaterThan(0.75 * (workers + 4));
        expect(limit).toBeLessThanOrEqual(workers + 4 + 1);
      }
      expect(server.answered - answeredBefore).toBeGreaterThan(0.95 * workers * 500);
    }
  });

  it.each([[{ backoffRatio: 0.4 }], [{ backoffRatio: 1.1 }], [{ timeout: 0 }], [{ ratio: 0.5 }]])(
    'AIMD names a wrong option: %o',
    (options) => {
      expect(() => new AimdLimit(options as never)).toThrow(`'${Object.keys(options)[0]}'`);
    },
  );
});
