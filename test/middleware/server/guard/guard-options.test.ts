import { describe, expect, it, onTestFinished } from 'vitest';
import {
  ServerGuard,
  type ServerGuardOptions,
} from '../../../../src/middleware/server/guard/server-guard.ts';
import type { IdempotencyOptions } from '../../../../src/middleware/server/idempotency/idempotency-options.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { AdaptiveConcurrency } from '../../../../src/policies/adaptive-concurrency.ts';
import { fling } from '../../../policies/helpers.ts';
import { type Application, frameworks } from '../frameworks.ts';

type AnyFunction = (...args: never[]) => unknown;
type FunctionsOf<T> = {
  [K in keyof T]-?: Extract<T[K], AnyFunction> extends never ? never : K;
}[keyof T];

interface DecidingOption {
  /** Whether the guard awaits a promise from the function. */
  readonly promise: 'awaited' | 'an error' | "the limiter's to judge";
  options(decide: () => never): ServerGuardOptions;
}

/** The functions among the options: a new one does not compile until it is named here. */
const deciding: Record<
  FunctionsOf<ServerGuardOptions> | FunctionsOf<IdempotencyOptions> | 'partition',
  DecidingOption
> = {
  exempt: { promise: 'an error', options: (exempt) => ({ exempt }) },
  priorityOf: { promise: 'an error', options: (priorityOf) => ({ priorityOf, priorities: ['a', 'b'] }) },
  random: {
    promise: 'an error',
    options: (random) => ({ random, adaptiveConcurrency: { initialLimit: 1, maxLimit: 1 } }),
  },
  scope: { promise: 'awaited', options: (scope) => ({ idempotency: { scope } }) },
  identity: { promise: 'awaited', options: (identity) => ({ identity }) },
  required: { promise: 'awaited', options: (required) => ({ idempotency: { required } }) },
  partition: {
    promise: "the limiter's to judge",
    options: (partition) => {
      const partitions = [{ name: 'a', share: 1 }];
      return { adaptiveConcurrency: new AdaptiveConcurrency({ partitions, partition }) };
    },
  },
};

/** The ways in which a function fails: with errors, or strings that Express gives a meaning. */
const failures: [string, (option: DecidingOption) => boolean, () => never][] = [
  ['throws', () => true, () => fling(new Error('broken'))],
  ['throws undefined', () => true, () => fling(undefined)],
  ["throws 'route'", () => true, () => fling('route')],
  ['gives a promise', ({ promise }) => promise === 'an error', () => Promise.resolve(false) as never],
  [
    'gives a promise that rejects',
    ({ promise }) => promise !== "the limiter's to judge",
    () => Promise.reject(new Error('broken')) as never,
  ],
];

const cases = Object.entries(deciding).flatMap(([name, option]) =>
  failures
    .filter(([, applies]) => applies(option))
    .map(([how, , fail]) => [name, how, option, fail] as const),
);

/** Collects unhandled errors, which would end a process. */
function unhandled(): unknown[] {
  const found: unknown[] = [];
  const note = (error: unknown) => found.push(error);
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  onTestFinished(() => {
    process.off('unhandledRejection', note);
    process.off('uncaughtException', note);
  });
  return found;
}

describe.each(frameworks)('the options of a guard with %s', (_name, start) => {
  it.each(cases)(
    "a request gets 500, and the guard tells the error, when its '%s' %s",
    async (name, how, option, fail) => {
      const errors = unhandled();
      let broken = true;
      const store = new InMemoryIdempotencyStore();
      const { idempotency, ...others } = option.options((() => (broken ? fail() : fixed[name])) as never);
      const guard = new ServerGuard({ ...others, idempotency: { ...idempotency, store } });
      const told: { error: Error; request: object }[] = [];
      guard.on('decision-error', (event) => told.push(event));
      const handled: string[] = [];
      const application: Application = ({ path }) => {
        handled.push(path);
        return { body: 'done' };
      };
      const { origin } = await start(guard, application);
      // Only a rejected request needs a random number.
      const limiter = guard.adaptiveConcurrency;
      const held = name === 'random' ? hold(limiter!) : undefined;
      const headers: Record<string, string> = name === 'required' ? {} : { 'idempotency-key': 'k1' };
      const post = () => fetch(`${origin}/orders`, { method: 'POST', body: 'a', headers });

      const response = await post();
      await response.text();
      expect(response.status).toBe(500);
      expect(handled).toEqual([]);
      expect(told).toEqual([{ error: expect.any(Error), request: { method: 'POST', path: '/orders' } }]);
      if (how.startsWith('gives a promise') && option.promise === 'an error') {
        expect(told[0]!.error).toBeInstanceOf(TypeError);
        expect(told[0]!.error.message).toContain(`'${name}'`);
      }
      expect(store.size).toBe(0);
      held?.();
      await new Promise((resolve) => setImmediate(resolve));
      expect(limiter?.inFlight ?? 0).toBe(0);

      broken = false;
      const next = await post();
      expect([next.status, await next.text()]).toEqual([200, 'done']);
      expect(errors).toEqual([]);
    },
  );

  it('two tenants with an asynchronous scope do not share keys', async () => {
    const scope = async ({ headers }: { headers: Readonly<Record<string, unknown>> }) => {
      await new Promise((resolve) => setImmediate(resolve));
      return String(headers['x-tenant']);
    };
    let calls = 0;
    const { origin } = await start({ idempotency: { scope } }, () => ({ body: String(++calls) }));
    const post = async (tenant: string) => {
      const headers = { 'idempotency-key': 'k1', 'x-tenant': tenant };
      return (await fetch(origin, { method: 'POST', body: 'a', headers })).text();
    };
    expect([await post('a'), await post('b'), await post('a')]).toEqual(['1', '2', '1']);
  });

  it("a guard requires a key where an asynchronous 'required' says so, and only there", async () => {
    const required = async ({ path }: { path: string }) => path === '/orders';
    const { origin } = await start({ idempotency: { required } }, () => ({ body: 'done' }));
    const post = async (path: string) => (await fetch(origin + path, { method: 'POST', body: 'a' })).status;
    expect([await post('/orders'), await post('/searches')]).toEqual([400, 200]);
  });
});

/** The value that each option gives once it works. */
const fixed: Record<string, unknown> = {
  exempt: false,
  priorityOf: 'a',
  random: 0.5,
  scope: 'caller',
  identity: { kind: 'jwt', subject: 'u1', scopes: new Set(), issuer: 'https://id.example' },
  required: false,
  partition: 'a',
};

/** Takes the only permit, and gives a function that releases it. */
function hold(limiter: AdaptiveConcurrency): () => void {
  let free!: () => void;
  void limiter.execute(
    () =>
      new Promise<void>((resolve) => {
        free = resolve;
      }),
  );
  return () => free();
}

it.each([undefined, null, 5, {}, ['a'], new Map()])(
  'a guard rejects a scope of %s with an error, since callers could share it',
  async (scope) => {
    const guard = new ServerGuard({ idempotency: { scope: () => scope as never } });
    const exchange = {
      request: { method: 'POST', path: '/', headers: { 'idempotency-key': 'k' } },
      target: '/',
      disconnected: { aborted: false, reason: undefined, listen: () => {}, unlisten: () => {} },
      body: { observe: () => {}, read: async () => {}, isCutOff: () => false },
    };
    await expect(guard.admit(exchange as never)).rejects.toThrow(/'scope' must give a string/);
  },
);
