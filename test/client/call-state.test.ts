import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { CallState } from '../../src/client/call-state.ts';
import { prepareCall, type ServiceCall } from '../../src/client/service-call.ts';

function stateOf(details: Partial<ServiceCall>, propagated: readonly string[] = []) {
  const call: ServiceCall = { service: 'user-service', path: '/', ...details };
  return new CallState(call, prepareCall(call), propagated);
}

describe('the headers of a call', () => {
  const propagated = ['x-request-id', 'r1', 'x-service-name', 'tests'];

  it('the headers of a call are the propagated ones where it has none of its own', () => {
    expect(stateOf({}, propagated).headers).toEqual(propagated);
  });

  it('the headers of a call are its own, then the propagated ones', () => {
    expect(stateOf({ headers: { 'X-Tenant': 't1' } }, propagated).headers).toEqual([
      ...['x-tenant', 't1'],
      ...propagated,
    ]);
  });

  it('the headers of a call are its own alone where it sets a header that would be propagated', () => {
    expect(stateOf({ headers: { 'X-Request-ID': 'mine' } }, propagated).headers).toEqual([
      ...['x-request-id', 'mine', 'x-service-name', 'tests'],
    ]);
  });

  it('the headers of a call keep a propagated header though the value of one of its own reads like its name', () => {
    expect(stateOf({ headers: { 'x-note': 'x-request-id' } }, propagated).headers).toEqual([
      ...['x-note', 'x-request-id'],
      ...propagated,
    ]);
  });
});

describe('a call', () => {
  it.each<[string, boolean, boolean, Partial<ServiceCall>]>([
    ['a GET', true, true, {}],
    ['a POST', true, false, { method: 'POST', body: {} }],
    ['a POST with an idempotency key', true, true, { method: 'POST', idempotencyKey: 'k' }],
    ['a PUT of a stream', true, false, { method: 'PUT', body: Readable.from(['a']) }],
    ['a POST of a stream', true, false, { method: 'POST', body: Readable.from(['a']) }],
  ])(
    'a call that is %s may be sent again if no instance received it: %s; if one may have: %s',
    (_what, before, after, details) => {
      const state = stateOf(details);
      expect(state.retryable).toBe(before);
      state.markSent();
      expect(state.retryable).toBe(after);
    },
  );

  it('a call is not sent again with a stream that an abandoned attempt may still send once it has a connection', () => {
    const state = stateOf({ method: 'PUT', body: Readable.from(['a']) });
    state.bodyConsumed = true;
    expect(state.retryable).toBe(false);
  });
});
