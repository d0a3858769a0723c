import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { DeadlineExceededError } from '../../../../src/errors.ts';
import { Admission } from '../../../../src/middleware/server/guard/admission.ts';
import type { LocalResponse } from '../../../../src/middleware/server/guard/local-response.ts';
import {
  ServerGuard,
  type ServerGuardOptions,
} from '../../../../src/middleware/server/guard/server-guard.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { AbortScope } from '../../../../src/policies/abort.ts';
import { type Deferred, defer, fakeTime, flush, pass } from '../../../policies/helpers.ts';

beforeEach(fakeTime);

const caller = { kind: 'jwt', subject: 'u1', scopes: new Set<string>(), issuer: 'https://id' } as const;

interface Case {
  readonly option: string;
  /** decision is one that the function may make in time. */
  readonly decision: unknown;
  readonly headers: Record<string, string>;
  options(decide: () => never, store: InMemoryIdempotencyStore): ServerGuardOptions;
}

const CASES: readonly Case[] = [
  {
    option: "ServerGuard option 'identity'",
    decision: caller,
    headers: {},
    options: (identity) => ({ identity }),
  },
  {
    option: "idempotency option 'scope'",
    decision: 'u1',
    headers: { 'idempotency-key': 'k' },
    options: (scope, store) => ({ idempotency: { scope, store } }),
  },
  {
    option: "idempotency option 'required'",
    decision: false,
    headers: {},
    options: (required, store) => ({ idempotency: { required, store } }),
  },
];

function ask({ options, headers }: Case, deadline?: number) {
  const store = new InMemoryIdempotencyStore();
  const given: Deferred<never> = defer();
  const guard = new ServerGuard(options(() => given.promise as never, store));
  const errors: Error[] = [];
  guard.on('decision-error', ({ error }) => errors.push(error));
  const disconnected = new AbortScope(undefined, { onAbort() {} });
  const timeout: Record<string, string> =
    deadline === undefined ? {} : { 'x-request-timeout': String(deadline) };
  const request = { method: 'POST', path: '/', headers: { ...headers, ...timeout } };
  const body = { observe: () => {}, read: async () => Buffer.from('') };
  const seen: { decision: unknown; error: unknown } = { decision: undefined, error: undefined };
  Promise.resolve(guard.admit({ request, target: '/', disconnected, body } as never)).then(
    (decision) => {
      seen.decision = decision;
    },
    (error) => {
      seen.error = error;
    },
  );
  return { given, errors, disconnected, seen, store };
}

function codeOf(decision: unknown): string {
  return JSON.parse((decision as LocalResponse).body as string).code;
}

describe.each(CASES.map((row) => [row.option, row] as const))('a guard whose %s hangs', (option, row) => {
  it('ends the request at its deadline, with 504', async () => {
    const { seen, errors } = ask(row, 100);
    await pass(99);
    expect(seen.decision).toBeUndefined();
    await pass(2);
    expect(seen.decision).toMatchObject({ status: 504 });
    expect(codeOf(seen.decision)).toBe('ERR_DEADLINE_EXCEEDED');
    expect(errors).toEqual([]);
  });

  it('ends the request when its client disconnects', async () => {
    const { seen, disconnected, errors } = ask(row);
    await pass(10);
    disconnected.abort(new Error('gone'));
    await flush();
    expect(seen.decision).toMatchObject({ status: 499 });
    expect(errors).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('ends a request without a deadline after five seconds', async () => {
    const { seen, errors } = ask(row);
    await pass(4_999);
    expect(seen).toEqual({ decision: undefined, error: undefined });
    await pass(2);
    if (option.includes('identity')) {
      expect(seen.decision).toMatchObject({ status: 503, headers: { 'retry-after': expect.any(String) } });
      expect(codeOf(seen.decision)).toBe('ERR_IDENTITY_UNAVAILABLE');
      expect(errors).toEqual([]);
    } else {
      expect(seen.error).toMatchObject({ code: 'ERR_TIMEOUT', message: expect.stringContaining(option) });
      expect(errors).toEqual([seen.error]);
    }
  });

  it('lets nobody in, and locks no key, by a decision that comes too late', async () => {
    const unhandled = vi.fn();
    process.on('unhandledRejection', unhandled);
    onTestFinished(() => void process.off('unhandledRejection', unhandled));
    for (const settle of ['resolve', 'reject'] as const) {
      const { seen, given, store } = ask(row, 100);
      await pass(101);
      given[settle](row.decision as never);
      await flush();
      expect(seen.decision).toMatchObject({ status: 504 });
      expect(store.size).toBe(0);
    }
    await pass(10);
    expect(unhandled).not.toHaveBeenCalled();
  });

  it('lets the request in when the decision comes in time, without a timer left', async () => {
    const { seen, given } = ask(row, 1_000);
    await pass(900);
    given.resolve(row.decision as never);
    await flush();
    expect(seen.decision).toBeInstanceOf(Admission);
    (seen.decision as Admission).keyLock?.release();
    (seen.decision as Admission).finish(200);
    await flush();
    expect(vi.getTimerCount()).toBe(0);
  });
});

it('an error with which a function of a guard rejects stays the error of the request', async () => {
  const broken = new Error('broken');
  for (const row of CASES) {
    const { seen, given, errors } = ask(row, 1_000);
    given.reject(broken);
    await flush();
    expect(seen.error).toBe(broken);
    expect(errors).toEqual([broken]);
  }
});

it('a DeadlineExceededError of a call that a function of a guard makes is an error of that function', async () => {
  for (const row of CASES) {
    for (const deadline of [undefined, 1_000]) {
      const { seen, given, errors } = ask(row, deadline);
      const broken = new DeadlineExceededError('the deadline of another call passed', 5);
      given.reject(broken);
      await flush();
      expect(seen).toEqual({ decision: undefined, error: broken });
      expect(errors).toEqual([broken]);
    }
  }
});
