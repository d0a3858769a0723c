import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { EventCodec } from '../../src/events/event-codec.ts';
import { runInEvent } from '../../src/events/event-context.ts';
import {
  currentEvent,
  currentRequestContext,
  type DomainEvent,
  type EventMetadata,
  runWithRequestContext,
} from '../../src/index.ts';

const codec = new EventCodec('Bus', 'order-service', {});
const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
const otherTrace = `00-${'c'.repeat(32)}-${'d'.repeat(16)}-01`;
const request = { requestId: 'r1', traceparent, tracestate: 'congo=t61', deadline: 5_000 };

const create = (metadata?: Partial<EventMetadata>) =>
  codec.create({ eventType: 'order.created', aggregateId: 'o1', data: 1, metadata });

const event: DomainEvent = {
  eventType: 'order.created',
  aggregateId: 'o1',
  data: 1,
  eventId: 'e1',
  timestamp: 1,
  version: 1,
  source: 'order-service',
  metadata: { correlationId: 'c1', traceparent, tracestate: 'congo=t61' },
};

describe('the metadata of a new event', () => {
  it('an event that nothing has caused is correlated with itself', async () => {
    const { eventId, metadata } = await create();
    expect(metadata).toStrictEqual({ correlationId: eventId });
  });

  it('an event of a request carries its request id and its trace', async () => {
    const { metadata } = await runWithRequestContext(request, () => create());
    expect(metadata).toStrictEqual({ correlationId: 'r1', traceparent, tracestate: 'congo=t61' });
  });

  it('an event that a handler publishes is caused by the event that it handles', async () => {
    const { metadata } = await runInEvent(event, () => create());
    expect(metadata).toStrictEqual({ ...event.metadata, causationId: 'e1' });
  });

  it('metadata that are given go before those of the context, and others are kept', async () => {
    const given = { correlationId: 'own', causationId: 'cause', traceparent: otherTrace, tenant: { id: 7 } };
    const { metadata } = await runInEvent(event, () => create(given));
    expect(metadata).toStrictEqual(given);
  });

  it('metadata that are given as undefined count as left out', async () => {
    const { metadata } = await runInEvent(event, () =>
      create({ correlationId: undefined, tenant: undefined }),
    );
    expect(metadata).toStrictEqual({ ...event.metadata, causationId: 'e1' });
  });

  it('a context of a request that is malformed stops no event', async () => {
    const malformed = { requestId: '', traceparent: 'a\r\nb: c', tracestate: 'ä', deadline: Infinity };
    const { eventId, metadata } = await runWithRequestContext(malformed, () => create());
    expect(metadata).toStrictEqual({ correlationId: eventId });
  });

  it('the context is the one in which publish was called', async () => {
    let created: Promise<DomainEvent> | undefined;
    await runInEvent(event, async () => {
      await nextTurn();
      created = create();
    });
    expect((await created!).metadata.causationId).toBe('e1');
    expect((await create()).metadata.causationId).toBeUndefined();
  });
});

describe('what a handler runs in', () => {
  it('a handler runs in its event, and in a context that has its correlation id and trace and no deadline', async () => {
    const seen = await runWithRequestContext(request, () =>
      runInEvent(event, async () => {
        await nextTurn();
        return { event: currentEvent(), context: currentRequestContext() };
      }),
    );
    expect(seen.event).toBe(event);
    expect(seen.context).toEqual({
      requestId: 'c1',
      traceparent,
      tracestate: 'congo=t61',
      deadline: Infinity,
    });
    expect(currentEvent()).toBeUndefined();
  });

  it('handlers that run at once have their own events', async () => {
    const ids = await Promise.all(
      ['e1', 'e2'].map((eventId) =>
        runInEvent({ ...event, eventId }, async () => {
          await nextTurn();
          return currentEvent()?.eventId;
        }),
      ),
    );
    expect(ids).toEqual(['e1', 'e2']);
  });

  it('the request id is never one that a header cannot have', () => {
    const requestIdOf = (eventId: string, correlationId: string) =>
      runInEvent(
        { ...event, eventId, metadata: { correlationId } },
        () => currentRequestContext()!.requestId,
      );
    expect(requestIdOf('e1', 'ä ö')).toBe('e1');
    expect(requestIdOf('ä', 'ö')).toMatch(/^[\da-f-]{36}$/);
  });
});
