import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Retry } from '../../src/policies/retry.ts';
import { AWAITED_DECISIONS, DECISIONS, NOT_DECIDING } from '../support/decisions.ts';
import { OPTION_TAKERS } from '../support/options.ts';

const unhandled = vi.fn();

beforeEach(() => {
  unhandled.mockClear();
  process.on('unhandledRejection', unhandled);
  onTestFinished(() => void process.off('unhandledRejection', unhandled));
});

/** The values and errors that an async function settles with. */
const settlements = fc.oneof(
  fc.constantFrom(true, false, undefined, null, 0, 1, 'x', {}).map((value) => async () => value),
  fc.constant(async () => {
    throw new Error('no decision');
  }),
  fc.constant(async () => {
    await undefined;
    throw new Error('no decision, later');
  }),
);

const rowsOf = <R extends { option: string }>(rows: readonly R[]) =>
  rows.map((row, index) => [row.option, index + 1, row] as const);

describe.each(rowsOf(DECISIONS))('%s, case %i', (option, _index, { run }) => {
  it('is not taken for decided by a promise: the call fails with a TypeError that names the option', async () => {
    const property = fc.asyncProperty(settlements, async (decide) => {
      const error = await run(decide as never).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(TypeError);
      expect((error as Error).message).toContain(option);
    });
    await fc.assert(property, { numRuns: 12 });
    await setImmediate();
    expect(unhandled).not.toHaveBeenCalled();
  });
});

it.each(rowsOf(DECISIONS.filter(({ wrong }) => wrong !== undefined)))(
  '%s, row %i, fails the call by a TypeError that shows what it may not give',
  async (option, _index, { run, wrong }) => {
    for (const value of wrong!) {
      const error = {
        name: 'TypeError',
        message: expect.stringMatching(`^${option} must give .*; it gave `),
      };
      await expect(run((() => value) as never)).rejects.toMatchObject(error);
    }
  },
);

describe.each(rowsOf(AWAITED_DECISIONS))('%s, case %i', (_option, _index, { run }) => {
  it('waits for what a promise decides', async () => {
    const property = fc.asyncProperty(fc.boolean(), fc.nat({ max: 3 }), async (decision, turns) => {
      const decide = async () => {
        for (let turn = 0; turn < turns; turn++) await undefined;
        return decision;
      };
      expect(await run(decide)).toBe(decision);
      expect(await run(() => decision)).toBe(decision);
    });
    await fc.assert(property, { numRuns: 20 });
  });

  it('fails with what the promise rejects with', async () => {
    const broken = new Error('no decision');
    await expect(run(() => Promise.reject(broken))).rejects.toBe(broken);
    await setImmediate();
    expect(unhandled).not.toHaveBeenCalled();
  });
});

it('a shouldRetry that cancels the call that it is asked about leaves no rejection unhandled', async () => {
  const controller = new AbortController();
  const enough = new Error('enough');
  const shouldRetry = async () => {
    controller.abort(enough);
    throw new Error('no decision');
  };
  const call = new Retry({ shouldRetry }).execute(() => 'value', { signal: controller.signal });
  await expect(call).rejects.toBe(enough);
  await setImmediate();
  expect(unhandled).not.toHaveBeenCalled();
});

it('every option that takes a function stands in the table of decisions', async () => {
  const known = [...DECISIONS, ...AWAITED_DECISIONS].map(({ option }) => option);
  const missing: string[] = [];
  let found = 0;
  for (const { name, make, required, wrong } of OPTION_TAKERS) {
    for (const option of Object.keys(wrong)) {
      try {
        await make({ ...required, [option]: () => undefined });
      } catch {
        continue;
      }
      found++;
      const title = `${name} option '${option}'`;
      if (!known.includes(title) && !(title in NOT_DECIDING)) missing.push(title);
    }
  }
  expect(missing).toEqual([]);
  expect(found).toBeGreaterThan(20);
});
