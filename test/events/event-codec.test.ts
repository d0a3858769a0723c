import { type } from 'arktype';
import fc from 'fast-check';
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { EventCodec, type EventCodecOptions } from '../../src/events/event-codec.ts';
import { type DomainEvent, InvalidEventError, type NewEvent, type StandardSchema } from '../../src/index.ts';
import { fling } from '../policies/helpers.ts';

const create = (options: EventCodecOptions = {}) => new EventCodec('Bus', 'order-service', options);
const order = (data: unknown) => ({ eventType: 'order.created', aggregateId: 'o1', data });

const stored: DomainEvent = {
  ...order({ n: 1 }),
  eventId: 'e1',
  timestamp: 1,
  version: 1,
  source: 'order-service',
  metadata: { correlationId: 'c1' },
};

const { proxy: revoked, revoke } = Proxy.revocable({}, {});
revoke();

/** The data of a list in a list, so many times. */
const nestedJson = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);

describe('a new event', () => {
  it('a new event has all that was left out filled in, and is frozen', async () => {
    const before = Date.now();
    const event = await create().create(order({ n: 1 }));
    expect(event).toStrictEqual({
      ...order({ n: 1 }),
      eventId: expect.stringMatching(/^[\da-f]{8}-[\da-f]{4}-7/),
      timestamp: expect.any(Number),
      version: 1,
      source: 'order-service',
      metadata: { correlationId: event.eventId },
    });
    expect(event.timestamp).toBeGreaterThanOrEqual(before);
    expect([event, event.metadata].every(Object.isFrozen)).toBe(true);
  });

  it('a new event keeps the fields that it is given', async () => {
    expect(await create().create(stored)).toStrictEqual(stored);
  });

  it('a new event has the data that they were when it was created, however they change while it is validated', async () => {
    const data: Record<string, unknown> = { n: 1 };
    const schema = z.object({ n: z.number() }).refine(async () => true);
    const created = create({ schemas: { 'order.created': schema } }).create(order(data));
    data.n = 2n;
    const event = await created;
    expect(event.data).toEqual({ n: 1 });
    expect(create().serialize(event)).toContain('"data":{"n":1}');
  });

  it.each<[string, unknown, string]>([
    ['null', null, 'an event must be an object'],
    ['a text', 'order.created', 'an event must be an object'],
    ['a field that events do not have', { ...order(1), agregateId: 'o1' }, "no field 'agregateId'"],
    ['no type', { ...order(1), eventType: undefined }, 'eventType must be'],
    ['a type with a space', { ...order(1), eventType: 'order created' }, 'eventType must be'],
    ['no aggregate', { ...order(1), aggregateId: undefined }, 'aggregateId must be'],
    ['an empty aggregate', { ...order(1), aggregateId: '' }, 'aggregateId must be'],
    ['a number as aggregate', { ...order(1), aggregateId: 5 }, 'aggregateId must be'],
    ['an aggregate of 257 characters', { ...order(1), aggregateId: 'a'.repeat(257) }, 'aggregateId must be'],
    ['a NUL in its aggregate', { ...order(1), aggregateId: 'o\u0000' }, 'aggregateId must be'],
    ['half a character as aggregate', { ...order(1), aggregateId: '\ud83d' }, 'aggregateId must be'],
    ['a line feed in its id', { ...order(1), eventId: 'e1\n' }, 'eventId must be'],
    ['an empty source', { ...order(1), source: '' }, 'source must be'],
    ['a Date as its time', { ...order(1), timestamp: new Date() }, 'timestamp must be'],
    ['a time in fractions', { ...order(1), timestamp: performance.now() + 0.5 }, 'timestamp must be'],
    ['a time before 1970', { ...order(1), timestamp: -1 }, 'timestamp must be'],
    ['version 0', { ...order(1), version: 0 }, 'version must be'],
    ['a text as version', { ...order(1), version: '1' }, 'version must be'],
    ['a version that is not known', { ...order(1), version: 2 }, 'version 2 is not known here'],
    ['no data', order(undefined), 'data is missing'],
    ['data that JSON does not keep', order({ at: new Date(0) }), 'data.at is a Date'],
    [
      'data with a getter that throws',
      order({
        get n() {
          throw new Error('broken');
        },
      }),
      'broken',
    ],
    [
      'data that throw no error',
      order({
        get n() {
          return fling(null);
        },
      }),
      'data cannot be read',
    ],
    ['data behind a revoked Proxy', order(revoked), 'revoked'],
    ['a text as metadata', { ...order(1), metadata: 'c1' }, 'metadata must be'],
    ['a list as metadata', { ...order(1), metadata: ['c1'] }, 'metadata must be'],
    ['null as metadata', { ...order(1), metadata: null }, 'metadata must be'],
    ['metadata that JSON does not keep', { ...order(1), metadata: { n: 5n } }, 'metadata.n is 5n'],
    ['an empty correlation id', { ...order(1), metadata: { correlationId: '' } }, 'metadata.correlationId'],
    ['a number as cause', { ...order(1), metadata: { causationId: 5 } }, 'metadata.causationId'],
    ['a trace that is none', { ...order(1), metadata: { traceparent: 'x' } }, 'metadata.traceparent'],
    [
      'a trace state with a line feed',
      { ...order(1), metadata: { tracestate: 'a\n' } },
      'metadata.tracestate',
    ],
  ])('a new event with %s is rejected, and the error says why', async (_, given, message) => {
    const error = await create()
      .create(given as NewEvent)
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InvalidEventError);
    expect((error as Error).message).toContain(message);
  });

  it('a new event of 1 MiB is the largest that is stored, whatever its characters', async () => {
    const codec = create();
    const empty = Buffer.byteLength(codec.serialize(await codec.create({ ...stored, data: '' })));
    const sized = (bytes: number) =>
      codec.create({ ...stored, data: `${'ä'.repeat(100)}${'a'.repeat(bytes - 200)}` });
    const largest = codec.serialize(await sized(1_048_576 - empty));
    expect(Buffer.byteLength(largest)).toBe(1_048_576);
    expect(codec.parse(largest)).toMatchObject({ eventId: 'e1' });
    const tooLarge = await sized(1_048_577 - empty);
    expect(() => codec.serialize(tooLarge)).toThrow(InvalidEventError);
    expect(() => codec.serialize(tooLarge)).toThrow('1048577 bytes');
  });
});

describe('the options of a codec', () => {
  const data = (value: unknown) => value;

  it.each<[string, unknown, string]>([
    [
      'a gap',
      { 'order.created': { 1: data, 3: data } },
      "option 'upcast'['order.created'] has a gap: version 2",
    ],
    ['version 0', { 'order.created': { 0: data } }, 'from 1 on'],
    ['a version that is no number', { 'order.created': { one: data } }, 'from 1 on'],
    ['no step', { 'order.created': {} }, 'from 1 on'],
    [
      'a step that is no function',
      { 'order.created': { 1: 'data' } },
      "['order.created'][1] must be a function",
    ],
    ['a name that is no type', { 'order created': { 1: data } }, "the key 'order created'"],
    ['a function for all versions', { 'order.created': data }, "['order.created'] must be an object"],
  ])('a chain of upcasters with %s is an error of the constructor', (_, upcast, message) => {
    expect(() => create({ upcast: upcast as EventCodecOptions['upcast'] })).toThrow(TypeError);
    expect(() => create({ upcast: upcast as EventCodecOptions['upcast'] })).toThrow(message);
  });
});

describe('the schema of a type', () => {
  it.each<[string, StandardSchema]>([
    ['zod', z.object({ n: z.number() })],
    ['valibot', v.object({ n: v.number() })],
    ['arktype', type({ n: 'number' })],
    ['an asynchronous schema of zod', z.object({ n: z.number() }).refine(async () => true)],
  ])('the schema of a type may be one of %s', async (_, schema) => {
    const codec = create({ schemas: { 'order.created': schema } });
    await expect(codec.create(order({ n: 1 }))).resolves.toMatchObject({ data: { n: 1 } });
    await expect(codec.create(order({ n: 'one' }))).rejects.toThrow(/data\.n: /);
  });

  it('a schema that throws rejects the event with its error as the cause', async () => {
    const schema: StandardSchema = {
      '~standard': {
        version: 1,
        vendor: 'own',
        validate() {
          throw new Error('broken');
        },
      },
    };
    const error = await create({ schemas: { 'order.created': schema } })
      .create(order(1))
      .catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'ERR_INVALID_EVENT', cause: { message: 'broken' } });
  });

  it('the handler gets what the schema makes of the data, and what was given is stored', async () => {
    const schema = z.object({ at: z.iso.datetime().transform((text) => Date.parse(text)) });
    const codec = create({ schemas: { 'order.created': schema } });
    const event = await codec.create(order({ at: '1970-01-01T00:00:01Z' }));
    expect(event.data).toEqual({ at: '1970-01-01T00:00:01Z' });
    const received = codec.parse(codec.serialize(event));
    for (let attempt = 1; attempt <= 2; attempt++) {
      expect(await codec.read(received)).toMatchObject({ event: { data: { at: 1_000 } } });
    }
  });

  it.each([
    ['nothing', undefined],
    ['a promise of nothing', Promise.resolve()],
    ['issues that are none', { issues: [null] }],
  ])('a schema that gives %s makes the event invalid, and nothing else fails', async (_, result) => {
    const schema = { '~standard': { version: 1, vendor: 'own', validate: () => result } } as never;
    const codec = create({ schemas: { 'order.created': schema } });
    expect(await codec.read(stored)).toMatchObject({
      kind: 'invalid',
      error: { code: 'ERR_INVALID_EVENT', eventId: 'e1' },
    });
  });

  it('a schema is for the current version alone: an event of a former one is validated once it is upcast', async () => {
    const codec = create({
      schemas: { 'order.created': z.object({ n: z.number(), currency: z.string() }) },
      upcast: { 'order.created': { 1: (data) => ({ ...data, currency: 'EUR' }) } },
    });
    const event = await codec.create({ ...order({ n: 1 }), version: 1 });
    expect(await codec.read(event)).toMatchObject({
      kind: 'event',
      event: { data: { currency: 'EUR' }, version: 2 },
    });
    const bad = await codec.create({ ...order({ m: 1 }), version: 1 });
    expect(await codec.read(bad)).toMatchObject({ kind: 'invalid', error: { code: 'ERR_INVALID_EVENT' } });
  });
});

describe('the versions of a type', () => {
  const upcast = {
    'order.created': {
      2: (data: { steps: number[] }) => {
        data.steps.push(2);
        return data;
      },
      3: (data: { steps: number[] }) => ({ steps: [...data.steps, 3] }),
    },
  };

  it('the versions of a type are passed through one by one, and what was stored stays as it was', async () => {
    const codec = create({ upcast });
    const stored = await codec.create({ ...order({ steps: [1] }), version: 2 });
    expect(await codec.read(stored)).toMatchObject({ event: { data: { steps: [1, 2, 3] }, version: 4 } });
    expect(stored.data).toEqual({ steps: [1] });
  });

  it('versions older than the first that is upcast are invalid', async () => {
    const stored = await create().create({ ...order(1), version: 1 });
    expect(await create({ upcast }).read(stored)).toMatchObject({
      kind: 'invalid',
      error: { message: expect.stringContaining('older than 2') },
    });
  });

  it.each<[string, (data: unknown) => unknown]>([
    [
      'throws',
      () => {
        throw new Error('broken');
      },
    ],
    ['gives nothing', () => undefined],
  ])('an upcaster that %s makes the event invalid, and the error names both', async (_, step) => {
    const read = await create({ upcast: { 'order.created': { 1: step } } }).read(stored);
    expect(read).toMatchObject({ kind: 'invalid', error: { code: 'ERR_INVALID_EVENT', eventId: 'e1' } });
    expect(read).toMatchObject({ error: { message: expect.stringContaining('the upcast from version 1') } });
  });

  it('newer versions are held, or dead if the option says so', async () => {
    const newer = await create({ upcast }).create(order({ steps: [] }));
    expect(await create().read(newer)).toMatchObject({ kind: 'hold', error: { code: 'ERR_EVENT_VERSION' } });
    expect(await create({ newerVersion: 'dead' }).read(newer)).toMatchObject({ kind: 'invalid' });
  });

  it('an upcaster that gives a promise makes the event invalid', async () => {
    const codec = create({ upcast: { 'order.created': { 1: async (data) => data } } });
    const stored = await codec.create({ ...order(1), version: 1 });
    expect(await codec.read(stored)).toMatchObject({
      kind: 'invalid',
      error: { message: expect.stringContaining('gave a promise') },
    });
  });
});

describe('a stored event', () => {
  it('a stored event is read as it was written', async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (data) => {
        const codec = create();
        const event = await codec.create(order(data));
        expect(codec.parse(codec.serialize(event))).toEqual(JSON.parse(JSON.stringify(event)));
      }),
    );
  });

  it('a text that anybody has written is an event or an InvalidEventError', () => {
    const codec = create();
    const anything = fc.oneof(
      fc.string(),
      fc.json(),
      fc.object().map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(anything, (json) => {
        try {
          codec.parse(json);
        } catch (error) {
          expect(error).toBeInstanceOf(InvalidEventError);
        }
      }),
    );
  });

  it('an event of the current version without a schema is read at once, and is not copied', () => {
    const read = create().read(stored);
    expect(read).toEqual({ kind: 'event', event: stored });
    expect((read as { event: DomainEvent }).event).toBe(stored);
  });

  it('data of as many levels as an event may have are read again, and deeper ones are invalid', async () => {
    const codec = create();
    const event = await codec.create(order(JSON.parse(nestedJson(64))));
    expect(codec.parse(codec.serialize(event))).toEqual(event);
    const deep = (levels: number) =>
      JSON.stringify({ ...stored, data: 0 }).replace('"data":0', `"data":${nestedJson(levels)}`);
    expect(() => codec.parse(deep(65))).toThrow('levels');
    expect(() => codec.parse(deep(500_000))).toThrow(InvalidEventError);
  });

  it('an error about a stored event is short and one line, whatever the event has', () => {
    const hostile = [
      { ...stored, eventType: `order\n${'x'.repeat(100_000)}` },
      { ...stored, aggregateId: 'x'.repeat(100_000) },
      { ...stored, eventId: `e\r\n${'x'.repeat(100_000)}` },
      { ...stored, metadata: { correlationId: 'x'.repeat(100_000) } },
      { ...stored, timestamp: 'x'.repeat(100_000) },
    ];
    for (const event of hostile) {
      let message = '';
      try {
        create().parse(JSON.stringify(event));
      } catch (error) {
        message = (error as Error).message;
      }
      expect(message).toMatch(/^the event( 'order.created')? is invalid: .{1,400}$/);
    }
  });

  it('a text that is longer than an event may be is not parsed', () => {
    expect(() => create().parse(`"${'x'.repeat(1_048_576)}"`)).toThrow('1048576');
  });

  it('the error of a stored event shows nothing of its data', () => {
    const json = JSON.stringify({
      eventType: 'order.created',
      aggregateId: 'o1',
      data: 'secret',
      eventId: 'e1',
    });
    expect(() => create().parse(json)).toThrow(InvalidEventError);
    expect(() => create().parse(json)).not.toThrow('secret');
  });
});

it.each([
  ['no reason', () => ({ issues: [] }), 'is invalid: its schema rejects the data, and gives no reason'],
  ['an error', () => fail(), 'is invalid: its schema failed: the tenant is unknown'],
])(
  'a schema that rejects with %s is an error that says as much as is known',
  async (_, validate, message) => {
    const schema = { '~standard': { version: 1 as const, vendor: 'own', validate } };
    const codec = new EventCodec('Bus', 'shop', { schemas: { 'order.created': schema } });
    const creating = codec.create({ eventType: 'order.created', aggregateId: 'o1', data: {} });
    await expect(creating).rejects.toThrow(message);
  },
);

function fail(): never {
  throw new Error('the tenant is unknown');
}
