import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  currentRequestContext,
  type RequestContext,
  requestContextFrom,
  runWithRequestContext,
} from '../../src/client/propagation.ts';
import { fakeTime, fling, pass, rejectionOf } from '../policies/helpers.ts';
import { anyText } from '../support/arbitraries.ts';

const UUID = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;
const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

describe('the context of an incoming request', () => {
  beforeEach(fakeTime);
  it('the context of an incoming request is the one that its caller sent', () => {
    const headers = {
      'x-request-id': 'r-1.2:3=4+5/6@7_8',
      'x-request-timeout': '1500',
      traceparent,
      tracestate: 'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7',
    };
    expect(requestContextFrom(headers)).toEqual({
      requestId: headers['x-request-id'],
      traceparent,
      tracestate: headers.tracestate,
      deadline: performance.now() + 1_500,
    });
  });

  it('the context of an incoming request has a request id of its own, no trace and no deadline where the caller sent nothing', () => {
    const context = requestContextFrom({});
    expect(context).toEqual({
      requestId: expect.stringMatching(UUID),
      traceparent: undefined,
      tracestate: undefined,
      deadline: Infinity,
    });
    expect(requestContextFrom({}).requestId).not.toBe(context.requestId);
  });

  it.each([
    '',
    ' ',
    'a b',
    'a\r\nx-admin: 1',
    'a\n',
    'a\u0000',
    'ä',
    '<script>',
    '"',
    'a'.repeat(129),
    ['one'],
    ['one', 'two'],
  ])(
    'the context of an incoming request has a request id of its own where the received one is not well formed: %j',
    (id) => {
      expect(requestContextFrom({ 'x-request-id': id }).requestId).toMatch(UUID);
    },
  );

  it('the context of an incoming request takes a request id of up to 128 characters', () => {
    expect(requestContextFrom({ 'x-request-id': 'a'.repeat(128) }).requestId).toBe('a'.repeat(128));
  });

  it('the context of an incoming request ends at a deadline on a clock that does not jump', async () => {
    const { deadline } = requestContextFrom({ 'x-request-timeout': '1000' });
    await pass(400);
    vi.setSystemTime(Date.now() + 600_000);
    expect(deadline - performance.now()).toBe(600);
  });

  it('the context of an incoming request has ended already where the caller waits no more', () => {
    expect(requestContextFrom({ 'x-request-timeout': '0' }).deadline).toBe(performance.now());
  });

  it.each([
    '',
    '-1',
    '1.5',
    '1e3',
    'Infinity',
    'NaN',
    '0x10',
    ' 5',
    '5\n',
    '1000000000',
    ',',
    '5,'.repeat(200),
  ])(
    'the context of an incoming request has no deadline where the received timeout is not well formed: %j',
    (timeout) => {
      expect(requestContextFrom({ 'x-request-timeout': timeout }).deadline).toBe(Infinity);
    },
  );

  it.each<[string | string[], number]>([
    ['5, 6', 5],
    ['9999,400', 400],
    [['9999', '400'], 400],
    [['5'], 5],
    ['abc, 5', 5],
    ['7,7', 7],
  ])(
    'the context of an incoming request ends at the least of several timeouts: of %j at %i',
    (timeout, least) => {
      expect(requestContextFrom({ 'x-request-timeout': timeout }).deadline).toBe(performance.now() + least);
    },
  );

  it.each([
    '',
    traceparent.toUpperCase(),
    `${traceparent}-extra`,
    `${traceparent}\r\nx-admin: 1`,
    ` ${traceparent}`,
    traceparent.replace('4bf9', '4bg9'),
    traceparent.slice(1),
    traceparent.replace(/^00/, 'ff'),
    traceparent.replace('4bf92f3577b34da6a3ce929d0e0e4736', '0'.repeat(32)),
    traceparent.replace('00f067aa0ba902b7', '0'.repeat(16)),
    [traceparent, traceparent],
  ])(
    'the context of an incoming request is not part of a trace where the traceparent is not well formed: %j',
    (sent) => {
      const context = requestContextFrom({ traceparent: sent, tracestate: 'a=b' });
      expect(context).toMatchObject({ traceparent: undefined, tracestate: undefined });
    },
  );

  it.each(['', 'a=b\r\nx-admin: 1', 'a=ä', 'a=\u0007', `a=${'b'.repeat(511)}`, ['a=b']])(
    'the context of an incoming request keeps its trace without a state where the tracestate is not well formed: %j',
    (tracestate) => {
      expect(requestContextFrom({ traceparent, tracestate })).toMatchObject({
        traceparent,
        tracestate: undefined,
      });
    },
  );

  it('the context of an incoming request can be sent on as headers, whatever strangers send', () => {
    const hostile = fc.option(
      fc.oneof(
        anyText,
        fc
          .tuple(fc.constantFrom('a', 'a b', '\r', '0'), fc.nat(600))
          .map(([text, times]) => text.repeat(times)),
        fc.stringMatching(/^\d{1,12}$/),
        fc.array(fc.string()),
      ),
      { nil: undefined },
    );
    const headers = fc.record({
      'x-request-id': hostile,
      'x-request-timeout': hostile,
      traceparent: fc.oneof(hostile, fc.constant(traceparent)),
      tracestate: hostile,
    });
    fc.assert(
      fc.property(headers, (sent) => {
        const context = requestContextFrom(sent);
        expect(context.requestId).toMatch(/^[\x21-\x7e]{1,128}$/);
        expect(context.traceparent ?? traceparent).toBe(traceparent);
        expect(context.tracestate ?? 'none').toMatch(/^[\x20-\x7e]{1,512}$/);
        expect(context.deadline).toBeGreaterThanOrEqual(performance.now());
        if (context.deadline !== Infinity)
          expect(context.deadline - performance.now()).toBeLessThan(1_000_000_000);
      }),
    );
  });
});

describe('a function that runs in a context', () => {
  const toContext = (requestId: string): RequestContext => ({ requestId, deadline: Infinity });
  const currentId = () => currentRequestContext()?.requestId;

  it('a function that runs in a context has that context, also after it has waited', async () => {
    const context = toContext('r1');
    await runWithRequestContext(context, async () => {
      expect(currentRequestContext()).toBe(context);
      await nextTurn();
      expect(currentRequestContext()).toBe(context);
    });
    expect(currentRequestContext()).toBeUndefined();
  });

  it('running a function in a context returns or throws as the function does', async () => {
    const error = new Error('broken');
    expect(runWithRequestContext(toContext('r1'), () => 5)).toBe(5);
    expect(() => runWithRequestContext(toContext('r1'), () => fling(error))).toThrow(error);
    expect(await rejectionOf(runWithRequestContext(toContext('r1'), () => Promise.reject(error)))).toBe(
      error,
    );
    expect(currentRequestContext()).toBeUndefined();
  });

  it('running a function in a context needs a context, and a function', () => {
    const fn = () => 5;
    for (const context of [undefined, null, 5, {}, fn]) {
      const run = () => runWithRequestContext(context as never, fn);
      expect(run).toThrow(TypeError);
      expect(run).toThrow(/^runWithRequestContext\(\) takes a context/);
    }
    for (const other of [undefined, 5, {}]) {
      const run = () => runWithRequestContext(toContext('r1'), other as never);
      expect(run).toThrow(/^the function of runWithRequestContext\(\) must be a function; got /);
    }
    for (const headers of [undefined, null, 'x', 5]) {
      expect(() => requestContextFrom(headers as never)).toThrow(
        /^requestContextFrom\(\) takes the headers of a request; got /,
      );
    }
  });

  it('a function that runs in a context never sees the context of another request that is served at the same time', async () => {
    const ids = Array.from({ length: 20 }, (_, index) => `r${index}`);
    const seen = await Promise.all(
      ids.map((id, index) =>
        runWithRequestContext(toContext(id), async () => {
          for (let turn = 0; turn < index % 5; turn++) await nextTurn();
          return currentId();
        }),
      ),
    );
    expect(seen).toEqual(ids);
  });

  it('a function that runs in nested contexts has the innermost one, then its own again', () => {
    const seen = runWithRequestContext(toContext('outer'), () => [
      currentId(),
      runWithRequestContext(toContext('inner'), currentId),
      currentId(),
    ]);
    expect(seen).toEqual(['outer', 'inner', 'outer']);
  });
});

it('a function outside of any request has no context', () => {
  expect(currentRequestContext()).toBeUndefined();
});

it.each<[string, (pairs: [string, string][]) => never]>([
  ['Headers', (pairs) => new Headers(pairs) as never],
  ['a Map', (pairs) => new Map(pairs) as never],
  ['a list of pairs', (pairs) => pairs as never],
  ['an object whose names are in other cases', (pairs) => Object.fromEntries(pairs) as never],
])('a context is read from %s', (_form, make) => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const pairs: [string, string][] = [
    ['X-Request-ID', 'r1'],
    ['Traceparent', traceparent],
    ['X-REQUEST-TIMEOUT', '5000'],
  ];
  const context = requestContextFrom(make(pairs));
  expect(context).toMatchObject({ requestId: 'r1', traceparent });
  expect(context.deadline).toBeLessThanOrEqual(performance.now() + 5_000);
});
