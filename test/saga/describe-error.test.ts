import { expect, it } from 'vitest';
import { ServiceResponseError } from '../../src/index.ts';
import { createEventFailure, describeAttempt } from '../../src/saga/describe-error.ts';

function rejection(body: unknown): ServiceResponseError {
  return new ServiceResponseError(`'payment' responded to POST /charges with 402`, {
    serviceName: 'payment',
    instanceId: 'i1',
    status: 402,
    headers: {},
    body,
  });
}

it('what a service says to its rejection is kept, for whoever is told of the saga', () => {
  const problem = { status: 402, title: 'Payment Required', detail: 'the card has expired' };
  expect(describeAttempt(rejection(problem), 1)).toMatchObject({
    name: 'ServiceResponseError',
    message: "'payment' responded to POST /charges with 402: the card has expired",
    code: 'ERR_SERVICE_RESPONSE',
  });
});

it('credentials that a service repeats are not kept, nor more than 500 characters', () => {
  const secret = rejection({ detail: 'no access with Bearer abc.def to https://ada:secret@bank' });
  expect(describeAttempt(secret, 1).message).toMatch(
    /with 402: no access with Bearer \*\*\* to https:\/\/\*\*\*@bank$/,
  );
  expect(describeAttempt(rejection({ detail: 'x'.repeat(9_999) }), 1).message.length).toBeLessThan(600);
});

function failure(data: unknown): string {
  const event = { eventId: 'e', eventType: 'review.failed', aggregateId: 'a', version: 1, source: 's', data };
  const error = createEventFailure({ ...event, timestamp: 0, metadata: { correlationId: 'c' } });
  return describeAttempt(error, 1).message;
}

it.each([
  ['the address is unknown'],
  [{ message: 'the address is unknown', reason: 'other' }],
  [{ error: 'the address is unknown' }],
  [{ error: { code: 5 }, reason: 'the address is unknown' }],
])('what an event says of the failure of its step is kept: %j', (data) => {
  expect(failure(data)).toBe(
    "the event 'review.failed' says that the step has failed: the address is unknown",
  );
});

it('an event that gives no reason, or a long one with credentials, is described all the same', () => {
  const bare = "the event 'review.failed' says that the step has failed";
  for (const data of [undefined, null, 5, {}, { reason: 5 }, []]) expect(failure(data)).toBe(bare);
  const secret = `${'x'.repeat(480)} https://ada:${'p'.repeat(50)}@bank Bearer abc.def`;
  expect(failure(secret)).not.toMatch(/ada|pp/);
  expect(failure({ reason: 'x'.repeat(9_999) })).toHaveLength(bare.length + 502);
});

it('credentials are not kept if a message is cut within them, but a host at its end is', () => {
  const message = `${'x'.repeat(970)} https://ada:${'p'.repeat(50)}@bank`;
  expect(describeAttempt(new Error(message), 1).message).not.toMatch(/ada|pp/);
  expect(describeAttempt(new Error('no way to https://bank'), 1).message).toBe('no way to https://bank');
});

it.each([[undefined], ['text'], [{ detail: 5 }], [[]]])(
  'a rejection whose body is %j is described by its status alone',
  (body) => {
    expect(describeAttempt(rejection(body), 1).message).toBe("'payment' responded to POST /charges with 402");
  },
);
