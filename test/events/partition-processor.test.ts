import { beforeEach, expect, it, vi } from 'vitest';
import { EventVersionError, InvalidEventError, PartitionLostError } from '../../src/errors.ts';
import {
  type Delivery,
  type DeliveryLog,
  type DeliveryState,
  NEW_DELIVERY,
} from '../../src/events/delivery.ts';
import type { DomainEvent } from '../../src/events/domain-event.ts';
import type { EventReader } from '../../src/events/event-reader.ts';
import { PartitionProcessor, type ProcessorOptions } from '../../src/events/partition-processor.ts';
import { Bulkhead, constantBackoff } from '../../src/index.ts';
import { type Deferred, deferred } from '../../src/internal/deferred.ts';

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
});

/** Records what a processor tells its log, as `method id`. */
class RecordingLog implements DeliveryLog {
  readonly calls: string[] = [];
  readonly states = new Map<string, DeliveryState>();
  /** Each mark that an attempt begins waits for it, if there is one. */
  marking: Deferred<void> | undefined = undefined;

  acknowledge({ id }: Delivery): void {
    this.calls.push(`acknowledge ${id}`);
  }

  save({ id }: Delivery, state: DeliveryState): void {
    this.calls.push(`save ${id}`);
    this.states.set(id, state);
  }

  bury({ id }: Delivery, state: DeliveryState): void {
    this.calls.push(`bury ${id}`);
    this.states.set(id, state);
  }

  async markStarted({ id }: Delivery, state: DeliveryState): Promise<void> {
    this.calls.push(`start ${id}`);
    this.states.set(id, state);
    await this.marking?.promise;
  }
}

const knows: EventReader = { holdFor: 10_000, read: (event) => ({ kind: 'event', event }) };

/** Knows version 1 alone. */
const knowsFirst: EventReader = {
  holdFor: 10_000,
  read: (event) =>
    event.version === 1
      ? { kind: 'event', event }
      : { kind: 'hold', error: new EventVersionError('newer', { eventId: event.eventId }) },
};

/** A processor whose handler does as `behave` says, and all that it did. */
function start(
  behave: (event: DomainEvent, attempt: number, signal: AbortSignal) => unknown = () => {},
  options: Partial<ProcessorOptions> = {},
) {
  const log = new RecordingLog();
  const begun: string[] = [];
  const told: string[] = [];
  const processor = new PartitionProcessor({
    handle: async (event, attempt, signal) => {
      begun.push(attempt === 1 ? event.eventId : `${event.eventId} (${attempt})`);
      return behave(event, attempt, signal);
    },
    reader: knows,
    log,
    listener: {
      handled: ({ eventId }) => void told.push(`handled ${eventId}`),
      failed: ({ eventId }, _error, attempt, retryIn) => {
        told.push(
          `failed ${eventId} (${attempt}), ${retryIn === undefined ? 'no retry' : `retry in ${retryIn}`}`,
        );
      },
      held: ({ eventId }, until) => void told.push(`held ${eventId} until ${until}`),
      died: ({ eventId }) => void told.push(`died ${eventId}`),
    },
    slots: new Bulkhead({ maxConcurrent: 16, maxQueue: 1_000 }),
    maxAttempts: 3,
    backoff: constantBackoff(100),
    ordered: true,
    prefetch: 10,
    isOwned: () => true,
    ...options,
  });
  return { processor, log, begun, told };
}

/** A delivery of the event `a1` of the aggregate `a`, with the id `a1`. */
function deliver(id: string, rest: Partial<Delivery> & { version?: number } = {}): Delivery {
  const { version = 1, ...delivery } = rest;
  const event: DomainEvent = {
    eventType: 'order.created',
    aggregateId: id[0]!,
    data: { items: ['book'] },
    eventId: id,
    timestamp: 5,
    version,
    source: 'shop',
    metadata: { correlationId: 'c' },
  };
  return { id, json: JSON.stringify(event), event, state: NEW_DELIVERY, suspect: false, ...delivery };
}

const interrupted = (attempts = 0, alone = false): Partial<Delivery> => ({
  suspect: true,
  state: { ...NEW_DELIVERY, attempts, started: true, alone },
});
const fail = () => {
  throw new Error('no stock');
};
const settle = () => vi.advanceTimersByTimeAsync(0);
const lost = new PartitionLostError('lost', { group: 'g', topic: 'order', partition: 0 });

it('a partition hands on the events of one aggregate one by one, and those of others meanwhile', async () => {
  const gates = new Map(['a1', 'a2', 'b1'].map((id) => [id, deferred<void>()]));
  const { processor, begun, log } = start(({ eventId }) => gates.get(eventId)!.promise);
  processor.accept(['a1', 'a2', 'b1'].map((id) => deliver(id)));
  await settle();
  expect(begun).toEqual(['a1', 'b1']);
  gates.get('b1')!.resolve();
  await settle();
  expect(log.calls).toEqual(['acknowledge b1']);
  gates.get('a1')!.resolve();
  await settle();
  expect(begun).toEqual(['a1', 'b1', 'a2']);
});

it('an event that fails holds back its aggregate alone, until it is handled', async () => {
  const { processor, begun } = start(({ eventId }, attempt) => eventId === 'a1' && attempt < 3 && fail());
  processor.accept(['a1', 'a2', 'b1'].map((id) => deliver(id)));
  await settle();
  expect(begun).toEqual(['a1', 'b1']);
  await vi.advanceTimersByTimeAsync(99);
  expect(begun).toEqual(['a1', 'b1']);
  await vi.advanceTimersByTimeAsync(101);
  expect(begun).toEqual(['a1', 'b1', 'a1 (2)', 'a1 (3)', 'a2']);
});

it('an event that fails too often is buried with its errors, and its aggregate goes on', async () => {
  const { processor, begun, log, told } = start(({ eventId }) => eventId === 'a1' && fail());
  processor.accept([deliver('a1'), deliver('a2')]);
  await vi.advanceTimersByTimeAsync(200);
  expect(begun).toEqual(['a1', 'a1 (2)', 'a1 (3)', 'a2']);
  expect(log.calls).toEqual(['save a1', 'save a1', 'bury a1', 'acknowledge a2']);
  const errors = [1, 2, 3].map((attempt) => ({ attempt, name: 'Error', message: 'no stock' }));
  expect(log.states.get('a1')).toMatchObject({ attempts: 3, errors });
  expect(told).toEqual([
    'failed a1 (1), retry in 100',
    'failed a1 (2), retry in 100',
    'failed a1 (3), no retry',
    'died a1',
    'handled a2',
  ]);
});

it('an event without a bound of attempts keeps its ten latest errors', async () => {
  const { processor, log } = start(fail, { maxAttempts: Infinity });
  processor.accept([deliver('a1')]);
  await vi.advanceTimersByTimeAsync(100 * 24);
  const { attempts, errors } = log.states.get('a1')!;
  expect(attempts).toBe(25);
  expect(errors.map(({ attempt }) => attempt)).toEqual([16, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
});

it('an event that no process can handle is buried at once, and counts the one attempt that it was', async () => {
  const error = new InvalidEventError('data.n is missing');
  const reader: EventReader = { holdFor: 0, read: () => ({ kind: 'invalid', error }) };
  const { processor, log, told, begun } = start(() => {}, { reader, maxAttempts: Infinity });
  processor.accept([deliver('a1')]);
  await settle();
  expect(begun).toEqual([]);
  expect(told).toEqual(['failed a1 (1), no retry', 'died a1']);
  expect(log.states.get('a1')).toMatchObject({
    attempts: 1,
    errors: [{ attempt: 1, code: 'ERR_INVALID_EVENT' }],
  });
});

it('each attempt gets the event as it was stored, whatever the one before made of it', async () => {
  const seen: unknown[] = [];
  const { processor } = start(({ data }, attempt) => {
    const { items } = data as { items: string[] };
    seen.push(items.shift());
    if (attempt < 3) fail();
  });
  processor.accept([deliver('a1')]);
  await vi.advanceTimersByTimeAsync(200);
  expect(seen).toEqual(['book', 'book', 'book']);
});

it.each([
  ['undefined', undefined, { name: 'Error', message: 'undefined' }],
  ['a string', 'no stock', { name: 'Error', message: 'no stock' }],
  ['an object without a prototype', Object.create(null), { name: 'Error', message: 'an object' }],
  [
    'an error with a code',
    Object.assign(new Error('gone'), { code: 'EPIPE' }),
    { message: 'gone', code: 'EPIPE' },
  ],
  ['a TypeError of another realm', { name: 'TypeError', message: 'x' }, { name: 'TypeError', message: 'x' }],
  ['a long message', new Error('x'.repeat(5_000)), { message: `${'x'.repeat(1_000)}…` }],
  [
    'an object that throws on every access',
    new Proxy({}, { get: () => fail(), getPrototypeOf: () => fail() }),
    { name: 'Error', message: 'an object' },
  ],
])('a handler may reject with %s', async (_, reason, described) => {
  const { processor, log } = start(() => Promise.reject(reason));
  processor.accept([deliver('a1')]);
  await settle();
  expect(log.states.get('a1')!.errors).toMatchObject([described]);
  expect(() => JSON.stringify(log.states.get('a1'))).not.toThrow();
});

it.each([
  ['throws', fail],
  ['gives no number', () => 'soon' as never],
  ['gives a negative number', () => -5],
])('an event whose backoff %s is retried after a second, with a warning', async (_, backoff) => {
  const warning = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const { processor, begun } = start((_event, attempt) => attempt === 1 && fail(), { backoff });
  processor.accept([deliver('a1')]);
  await vi.advanceTimersByTimeAsync(999);
  expect(begun).toEqual(['a1']);
  await vi.advanceTimersByTimeAsync(1);
  expect(begun).toEqual(['a1', 'a1 (2)']);
  expect(warning).toHaveBeenCalledOnce();
});

it('a backoff is given the number of the retry and the wait before, over restarts too', async () => {
  const backoff = vi.fn(() => 50);
  const { processor } = start(fail, { backoff, maxAttempts: 5 });
  processor.accept([deliver('a1', { state: { ...NEW_DELIVERY, attempts: 2, wait: 700 } })]);
  await settle();
  expect(backoff).toHaveBeenLastCalledWith(3, 700, undefined);
});

it('a partition has room for prefetch events that are not done', async () => {
  const gate = deferred<void>();
  const { processor } = start(({ eventId }) => eventId === 'a1' && gate.promise, { prefetch: 3 });
  expect(processor.room).toBe(3);
  processor.accept(['a1', 'a2', 'b1'].map((id) => deliver(id)));
  expect(processor.room).toBe(0);
  await settle();
  expect(processor.room).toBe(1);
  gate.resolve();
  await settle();
  expect(processor.room).toBe(3);
});

it('without order, the events of one aggregate are handled at once', async () => {
  const { processor, begun, log } = start(({ eventId }) => eventId === 'a1' && fail(), { ordered: false });
  processor.accept(['a1', 'a2', 'a3'].map((id) => deliver(id)));
  await settle();
  expect(begun).toEqual(['a1', 'a2', 'a3']);
  expect(log.calls).toEqual(['save a1', 'acknowledge a2', 'acknowledge a3']);
});

it('an event that waited for a retry before a restart waits for the rest, and counts on', async () => {
  const { processor, begun } = start();
  const state = { ...NEW_DELIVERY, attempts: 1, retryAt: Date.now() + 300, wait: 500 };
  processor.accept([deliver('a1', { state })]);
  await vi.advanceTimersByTimeAsync(299);
  expect(begun).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(begun).toEqual(['a1 (2)']);
});

it('a clock that was set back makes no wait longer than it was', async () => {
  const { processor, begun } = start();
  const state = { ...NEW_DELIVERY, attempts: 1, retryAt: Date.now() + 3_600_000, wait: 500 };
  processor.accept([deliver('a1', { state })]);
  await vi.advanceTimersByTimeAsync(500);
  expect(begun).toEqual(['a1 (2)']);
});

it('a clock that is set in between neither shortens nor lengthens a wait', async () => {
  const { processor, begun } = start((_event, attempt) => attempt === 1 && fail());
  processor.accept([deliver('a1')]);
  await settle();
  vi.setSystemTime(Date.now() + 3_600_000);
  await vi.advanceTimersByTimeAsync(99);
  expect(begun).toEqual(['a1']);
  await vi.advanceTimersByTimeAsync(1);
  expect(begun).toEqual(['a1', 'a1 (2)']);
});

it('an event that has had all its attempts before a restart is buried', async () => {
  const { processor, begun, log } = start();
  processor.accept([deliver('a1', { state: { ...NEW_DELIVERY, attempts: 3 } })]);
  await settle();
  expect(begun).toEqual([]);
  expect(log.calls).toEqual(['bury a1']);
});

it('a hundred events that wait for their retries cause no warning of too many listeners', async () => {
  const warning = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const { processor } = start(fail, { ordered: false, prefetch: 100 });
  processor.accept(Array.from({ length: 100 }, (_, index) => deliver(`a${index}`)));
  await settle();
  expect(processor.room).toBe(0);
  await processor.stop();
  expect(warning).not.toHaveBeenCalled();
});

// Deaths of processes

it('an attempt of a suspect event begins once it is written that it does', async () => {
  const { processor, begun, log } = start();
  log.marking = deferred();
  processor.accept([deliver('a1', { suspect: true }), deliver('b1')]);
  await settle();
  expect(begun).toEqual(['b1']);
  expect(log.states.get('a1')).toMatchObject({ attempts: 0, started: true });
  log.marking.resolve();
  await settle();
  expect(begun).toEqual(['b1', 'a1']);
  expect(log.calls).toEqual(['start a1', 'acknowledge b1', 'acknowledge a1']);
});

it('a failed attempt of a suspect event takes its mark back', async () => {
  const { processor, log } = start(fail);
  processor.accept([deliver('a1', { suspect: true })]);
  await settle();
  expect(log.calls).toEqual(['start a1', 'save a1']);
  expect(log.states.get('a1')!.started).toBeUndefined();
});

it('the death of a process during an attempt counts as a failed attempt', async () => {
  const { processor, begun, log } = start(fail);
  processor.accept([deliver('a1', interrupted())]);
  await settle();
  expect(begun).toEqual(['a1 (2)']);
  expect(log.states.get('a1')).toMatchObject({
    attempts: 2,
    errors: [
      { attempt: 1, name: 'ProcessEnded' },
      { attempt: 2, message: 'no stock' },
    ],
  });
});

it('an event that has killed as many processes as it may is buried without a further attempt', async () => {
  const { processor, begun, log } = start();
  processor.accept([deliver('a1', interrupted(2, true)), deliver('a2')]);
  await settle();
  expect(begun).toEqual(['a2']);
  expect(log.calls).toEqual(['bury a1', 'acknowledge a2']);
});

it('an event that was under way beside others when a process died has an attempt alone before it is buried', async () => {
  for (const maxAttempts of [1, 3]) {
    const { processor, begun, log } = start(() => {}, { maxAttempts });
    processor.accept(['a1', 'b1'].map((id) => deliver(id, interrupted(maxAttempts - 1))));
    await settle();
    expect(begun).toEqual(maxAttempts === 1 ? ['a1', 'b1'] : ['a1 (3)', 'b1 (3)']);
    expect(log.calls).toEqual(['start a1', 'acknowledge a1', 'start b1', 'acknowledge b1']);
    expect(log.states.get('a1')).toMatchObject({ started: true, alone: true });
  }
});

it('an attempt is written to be alone no longer once others are handled beside it', async () => {
  const gate = deferred<void>();
  const { processor, log } = start(({ eventId }) => eventId === 'a1' && gate.promise, { maxAttempts: 1 });
  processor.accept([deliver('a1', interrupted()), deliver('b1', { suspect: true })]);
  await vi.advanceTimersByTimeAsync(4_999);
  expect(log.states.get('a1')).toMatchObject({ started: true, alone: true });
  await vi.advanceTimersByTimeAsync(1);
  expect(log.calls).toEqual(['start a1', 'save a1', 'start b1', 'acknowledge b1']);
  expect(log.states.get('a1')).toMatchObject({ started: true, alone: false });
  expect(log.states.get('b1')).toMatchObject({ started: true, alone: false });
  gate.resolve();
  await settle();
});

it('events that were under way when a process died are handled one by one, and all others after them', async () => {
  const gates = new Map(['a1', 'b1', 'c1'].map((id) => [id, deferred<void>()]));
  const { processor, begun } = start(({ eventId }) => gates.get(eventId)?.promise);
  processor.accept([
    deliver('c1', { suspect: true }),
    deliver('a1', interrupted()),
    deliver('b1', interrupted()),
  ]);
  await settle();
  expect(begun).toEqual(['a1 (2)']);
  processor.accept([deliver('d1')]);
  gates.get('a1')!.resolve();
  await settle();
  expect(begun).toEqual(['a1 (2)', 'b1 (2)']);
  gates.get('b1')!.resolve();
  await settle();
  expect(begun.slice(2).toSorted()).toEqual(['c1', 'd1']);
});

it('of all partitions of a process, one event that was under way when another died is handled at a time', async () => {
  const gate = deferred<void>();
  const [one, two, three] = [start(() => gate.promise), start(), start()];
  for (const { processor } of [one, two, three]) processor.accept([deliver('a1', interrupted())]);
  await settle();
  expect([one.begun, two.begun, three.begun]).toEqual([['a1 (2)'], [], []]);
  await two.processor.stop();
  gate.resolve();
  await settle();
  expect([one.begun, two.begun, three.begun]).toEqual([['a1 (2)'], [], ['a1 (2)']]);
});

it('an interrupted event whose handler hangs holds up the others for five seconds, and then its aggregate alone', async () => {
  const gate = deferred<void>();
  const [hanging, other] = [start(({ eventId }) => eventId === 'a1' && gate.promise), start()];
  const { processor, begun } = hanging;
  processor.accept([
    deliver('a1', interrupted()),
    deliver('b1', interrupted()),
    deliver('c1'),
    deliver('a2'),
  ]);
  other.processor.accept([deliver('d1', interrupted())]);
  await vi.advanceTimersByTimeAsync(4_999);
  expect([begun, other.begun]).toEqual([['a1 (2)'], []]);
  await vi.advanceTimersByTimeAsync(1);
  expect([begun, other.begun]).toEqual([['a1 (2)', 'b1 (2)', 'c1'], ['d1 (2)']]);
  const stopping = processor.stop();
  const stopped = vi.fn();
  void stopping.then(stopped);
  await settle();
  expect(stopped).not.toHaveBeenCalled();
  gate.resolve();
  await stopping;
  expect(begun).toEqual(['a1 (2)', 'b1 (2)', 'c1']);
  expect(hanging.log.calls).toContain('acknowledge a1');
});

it('an interrupted event that fails when it is alone waits for its retry among the others', async () => {
  const { processor, begun } = start(({ eventId }, attempt) => eventId === 'a1' && attempt === 2 && fail());
  processor.accept([deliver('a1', interrupted()), deliver('a2', { suspect: true }), deliver('b1')]);
  await settle();
  expect(begun).toEqual(['a1 (2)', 'b1']);
  await vi.advanceTimersByTimeAsync(100);
  expect(begun).toEqual(['a1 (2)', 'b1', 'a1 (3)', 'a2']);
});

// Versions

it('an event of a newer version holds its aggregate, is told once, and is given up in time', async () => {
  const { processor, begun, log, told } = start(() => {}, { reader: knowsFirst });
  processor.accept([deliver('a1', { version: 2 }), deliver('a2'), deliver('b1')]);
  await vi.advanceTimersByTimeAsync(9_999);
  expect(begun).toEqual(['b1']);
  expect(told).toEqual(['held a1 until 1010000', 'handled b1']);
  expect(log.states.get('a1')).toMatchObject({ attempts: 0, heldSince: 1_000_000 });
  await vi.advanceTimersByTimeAsync(1);
  expect(begun).toEqual(['b1', 'a2']);
  expect(told.slice(2)).toEqual(['failed a1 (1), no retry', 'died a1', 'handled a2']);
  expect(log.states.get('a1')).toMatchObject({ errors: [{ code: 'ERR_EVENT_VERSION' }] });
});

it('a held event goes on at once in a process that knows its version', async () => {
  const { processor, begun } = start();
  const state = { ...NEW_DELIVERY, heldSince: 999_000, retryAt: 1_009_000, wait: 10_000 };
  processor.accept([deliver('a1', { version: 2, state })]);
  await settle();
  expect(begun).toEqual(['a1']);
});

it('a held event waits no longer in all than it may, over restarts too', async () => {
  const { processor, told } = start(() => {}, { reader: knowsFirst });
  const state = { ...NEW_DELIVERY, heldSince: 994_000, retryAt: 1_004_000, wait: 10_000 };
  processor.accept([deliver('a1', { version: 2, state })]);
  await vi.advanceTimersByTimeAsync(3_999);
  expect(told).toEqual(['held a1 until 1004000']);
  await vi.advanceTimersByTimeAsync(1);
  expect(told.at(-1)).toBe('died a1');
});

it('the attempts of an event that failed before it was held count on', async () => {
  const { processor, begun } = start(fail);
  processor.accept([deliver('a1', { state: { ...NEW_DELIVERY, attempts: 2, heldSince: 999_000 } })]);
  await settle();
  expect(begun).toEqual(['a1 (3)']);
});

// Ends

it('a partition that is stopped waits for its handlers, and begins no other', async () => {
  const gate = deferred<void>();
  const { processor, begun, log } = start(() => gate.promise);
  processor.accept(['a1', 'a2'].map((id) => deliver(id)));
  await settle();
  let stopped = false;
  const stopping = processor.stop().then(() => {
    stopped = true;
  });
  await settle();
  expect(stopped).toBe(false);
  gate.resolve();
  await stopping;
  expect(begun).toEqual(['a1']);
  expect(log.calls).toEqual(['acknowledge a1']);
  processor.accept([deliver('b1')]);
  await settle();
  expect(begun).toEqual(['a1']);
});

it('a partition that is stopped during a wait ends at once, and leaves no timer', async () => {
  const { processor, begun, log } = start(fail, { backoff: constantBackoff(60_000) });
  processor.accept([deliver('a1')]);
  await settle();
  await processor.stop();
  expect(begun).toEqual(['a1']);
  expect(log.calls).toEqual(['save a1']);
  expect(vi.getTimerCount()).toBe(0);
});

it('a partition that is stopped does not wait for a place that another partition has', async () => {
  const slots = new Bulkhead({ maxConcurrent: 1, maxQueue: 10 });
  const gate = deferred<void>();
  const other = start(() => gate.promise, { slots });
  const { processor, begun } = start(() => {}, { slots });
  other.processor.accept([deliver('a1')]);
  await settle();
  processor.accept([deliver('b1')]);
  await settle();
  await processor.stop();
  expect(begun).toEqual([]);
  gate.resolve();
  await other.processor.stop();
  expect(slots.inFlight).toBe(0);
});

it('a partition that is stopped while it is written that an attempt begins makes this attempt', async () => {
  const { processor, begun, log } = start();
  log.marking = deferred();
  processor.accept([deliver('a1', { suspect: true }), deliver('a2', { suspect: true })]);
  await settle();
  const stopping = processor.stop();
  log.marking.resolve();
  await stopping;
  expect(begun).toEqual(['a1']);
  expect(log.calls).toEqual(['start a1', 'acknowledge a1']);
});

it('a partition that cannot write that an attempt begins makes none', async () => {
  const { processor, begun, log } = start();
  log.marking = deferred();
  processor.accept([deliver('a1', { suspect: true }), deliver('b1')]);
  await settle();
  log.marking.reject(lost);
  await settle();
  expect(begun).toEqual(['b1']);
  processor.accept([deliver('c1')]);
  await settle();
  expect(begun).toEqual(['b1']);
});

it('a partition that is lost aborts its handlers, and what they throw then does not count', async () => {
  const reasons: unknown[] = [];
  const { processor, log, told, begun } = start(
    (_event, _attempt, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          reasons.push(signal.reason);
          reject(signal.reason);
        });
      }),
  );
  processor.accept(['a1', 'a2'].map((id) => deliver(id)));
  await settle();
  processor.abandon(lost);
  await processor.stop();
  expect(reasons).toEqual([lost]);
  expect({ calls: log.calls, told, begun }).toEqual({ calls: [], told: [], begun: ['a1'] });
});

it('a partition that is lost while it is written that an attempt begins makes none', async () => {
  const { processor, begun, log } = start();
  log.marking = deferred();
  processor.accept([deliver('a1', { suspect: true })]);
  await settle();
  processor.abandon(lost);
  log.marking.resolve();
  await processor.stop();
  expect(begun).toEqual([]);
});

it('no attempt begins once the lease has run out, even before anybody says so', async () => {
  let owned = true;
  const { processor, begun, log } = start(
    () => {
      owned = false;
    },
    { isOwned: () => owned },
  );
  processor.accept(['a1', 'a2'].map((id) => deliver(id)));
  await settle();
  expect(begun).toEqual(['a1']);
  expect(log.calls).toEqual(['acknowledge a1']);
  await processor.stop();
});

it('no attempt begins if the lease runs out while it is written that it does', async () => {
  let owned = true;
  const { processor, begun, log } = start(() => {}, { isOwned: () => owned });
  log.marking = deferred();
  processor.accept([deliver('a1', { suspect: true })]);
  await settle();
  owned = false;
  log.marking.resolve();
  await settle();
  expect(begun).toEqual([]);
});
