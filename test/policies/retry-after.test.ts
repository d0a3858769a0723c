import fc from 'fast-check';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { CircuitOpenError, HoldfastError } from '../../src/errors.ts';
import { parseRetryAfter, retryAfterOf } from '../../src/policies/retry-after.ts';
import { fakeTime } from './helpers.ts';

beforeEach(() => {
  fakeTime();
  vi.setSystemTime(new Date('2026-01-01T00:00:00Z'));
});
describe('a Retry-After header', () => {
  it.each([
    ['0', 0],
    ['120', 120_000],
    [' 7 ', 7_000],
    ['Thu, 01 Jan 2026 00:00:30 GMT', 30_000],
    ['Thursday, 01-Jan-26 00:00:30 GMT', 30_000],
    ['Wed, 31 Dec 2025 23:00:00 GMT', 0],
    ['Thu Jan  1 00:00:30 2026', 30_000],
    ['Thu, 01 Jan 2026 00:00:30', 30_000],
    ['Thu, 01 Jan 2026 01:00:30 +0100', 30_000],
  ])("a Retry-After header '%s' asks for %i ms", (header, milliseconds) => {
    expect(parseRetryAfter(header)).toBe(milliseconds);
  });

  it.each([
    '',
    ' ',
    '-1',
    '1.5',
    '1e3',
    '0x10',
    'soon',
    '2026-01-01',
    'Xyz, nonsense',
    'in 5 s',
    null,
    undefined,
    5,
    ['5'],
    {},
  ])('a Retry-After header %o asks for nothing', (header) => {
    expect(parseRetryAfter(header)).toBeUndefined();
  });

  it.each(['America/New_York', 'Asia/Tokyo'])(
    'a Retry-After header in the form of asctime is in UTC where the clock is that of %s',
    (zone) => {
      const { TZ } = process.env;
      onTestFinished(() => {
        if (TZ === undefined) delete process.env.TZ;
        else process.env.TZ = TZ;
      });
      process.env.TZ = zone;
      expect(new Date().getTimezoneOffset()).not.toBe(0);
      expect(parseRetryAfter('Thu Jan  1 00:00:30 2026')).toBe(30_000);
    },
  );

  it('any Retry-After header gives no number or one of at least 0', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.date().map(String), fc.nat().map(String)), (header) => {
        const asked = parseRetryAfter(header);
        expect(asked === undefined || asked >= 0).toBe(true);
      }),
    );
  });
});

describe('where a Retry-After is found', () => {
  const failed = (error: unknown) => retryAfterOf({ ok: false, error });
  const returned = (value: unknown) => retryAfterOf({ ok: true, value });

  it('a Retry-After is found in the retryAfter of an error of Holdfast', () => {
    expect(failed(new CircuitOpenError('open', 1_234))).toBe(1_234);
    expect(failed(new HoldfastError('ERR_TIMEOUT', 'slow'))).toBeUndefined();
    expect(failed(Object.assign(new Error('theirs'), { retryAfter: 5 }))).toBeUndefined();
  });

  it('a Retry-After is found in the headers of a returned response, or of an error, or of the response of an error', () => {
    const plain = { 'retry-after': '2' };
    for (const headers of [plain, new Headers({ 'Retry-After': '2' })]) {
      expect(returned({ headers })).toBe(2_000);
      expect(failed(Object.assign(new Error('429'), { headers }))).toBe(2_000);
      expect(failed(Object.assign(new Error('429'), { response: { headers } }))).toBe(2_000);
    }
  });

  it('a Retry-After is found with the name of the header in any case', () => {
    for (const name of ['Retry-After', 'RETRY-AFTER', 'retry-After']) {
      for (const headers of [{ [name]: '2' }, new Map([[name, '2']]), { get: () => null, [name]: '2' }]) {
        expect(returned({ headers })).toBe(2_000);
        expect(failed(Object.assign(new Error('429'), { response: { headers } }))).toBe(2_000);
      }
    }
  });

  it.each([
    undefined,
    null,
    'text',
    0,
    true,
    {},
    { headers: null },
    { headers: 'x' },
    { headers: {} },
    { response: null },
    { headers: new Headers() },
  ])('a Retry-After is found nowhere in %o', (holder) => {
    expect(failed(holder)).toBeUndefined();
    expect(returned(holder)).toBeUndefined();
  });
});
