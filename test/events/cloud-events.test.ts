import { CloudEvent } from 'cloudevents';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DomainEvent, fromCloudEvent, InvalidEventError, toCloudEvent } from '../../src/index.ts';

const event: DomainEvent = {
  eventType: 'order.created',
  aggregateId: 'o1',
  data: { total: 9.5 },
  eventId: '019a0000-0000-7000-8000-000000000000',
  timestamp: 1_700_000_000_123,
  version: 2,
  source: 'order-service',
  metadata: {
    correlationId: 'c1',
    causationId: 'e0',
    traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`,
    tenant: { id: 7 },
  },
};

const name = fc.stringMatching(/^[\w-]{1,10}(\.[\w-]{1,10}){0,2}$/);
const id = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 });
/** Names that mean something in CloudEvents, and must not be taken for it. */
const attribute = fc.constantFrom(
  'id',
  'source',
  'data',
  'data_base64',
  'dataschema',
  'metadata',
  'schemaurl',
);
const anyEvent: fc.Arbitrary<DomainEvent> = fc.record({
  eventType: name,
  aggregateId: id,
  data: fc.jsonValue(),
  eventId: id,
  timestamp: fc.integer({ min: 0, max: 253_402_300_799_999 }),
  version: fc.integer({ min: 1, max: 1_000 }),
  source: id,
  metadata: fc
    .tuple(
      fc.dictionary(fc.oneof(fc.string(), fc.stringMatching(/^[a-z\d]{1,22}$/), attribute), fc.jsonValue()),
      fc.record({ correlationId: id, causationId: id }, { requiredKeys: ['correlationId'] }),
    )
    .map(([others, known]) => ({ ...others, ...known })),
});

describe('an event as a CloudEvent', () => {
  it('a CloudEvent has the aggregate as its subject and partition key', () => {
    expect(toCloudEvent(event)).toEqual({
      specversion: '1.0',
      id: event.eventId,
      source: 'order-service',
      type: 'order.created',
      subject: 'o1',
      partitionkey: 'o1',
      time: '2023-11-14T22:13:20.123Z',
      datacontenttype: 'application/json',
      data: { total: 9.5 },
      schemaversion: 2,
      correlationid: 'c1',
      causationid: 'e0',
      traceparent: event.metadata.traceparent,
      metadata: '{"tenant":{"id":7}}',
    });
  });

  it("a CloudEvent is valid for the parser of CloudEvents' authors", () => {
    const parsed = new CloudEvent({ ...toCloudEvent(event) });
    expect(parsed.validate()).toBe(true);
    expect(parsed).toMatchObject({ subject: 'o1', partitionkey: 'o1', type: 'order.created' });
  });

  it('a CloudEvent is valid for that parser, and loses nothing on its way back, whatever the event', () => {
    fc.assert(
      fc.property(anyEvent, (given) => {
        const sent = JSON.parse(JSON.stringify(toCloudEvent(given)));
        expect(new CloudEvent(sent).validate()).toBe(true);
        expect(fromCloudEvent(sent)).toEqual(JSON.parse(JSON.stringify(given)));
      }),
    );
  });
});

it.each([undefined, null, 'e1', {}])(
  'what is no event is no CloudEvent, and the error says so: %j',
  (given) => {
    expect(() => toCloudEvent(given as never)).toThrow(InvalidEventError);
  },
);

it('a partition key that is not the subject becomes metadata, and comes back', () => {
  const given = fromCloudEvent({ ...toCloudEvent(event), partitionkey: 'tenant-7' });
  expect(given).toMatchObject({ aggregateId: 'o1', metadata: { partitionkey: 'tenant-7' } });
  expect(fromCloudEvent(toCloudEvent(given))).toEqual(given);
});

describe('the metadata of an event as a CloudEvent', () => {
  it('metadata are extension attributes, by which others can filter, where CloudEvents allows their name and value', () => {
    const metadata = {
      correlationId: 'c1',
      tenant: 'acme',
      retries: 3,
      test: true,
      userId: 'u1',
      ratio: 0.5,
    };
    const sent = toCloudEvent({ ...event, metadata });
    expect(sent).toMatchObject({ tenant: 'acme', retries: 3, test: true });
    expect(JSON.parse(sent.metadata!)).toEqual({ userId: 'u1', ratio: 0.5 });
  });

  it('metadata never change what the attributes of CloudEvents say', () => {
    const metadata = { correlationId: 'c1', id: 'x', type: 'x', dataschema: 'no URI', data: 'x' };
    const sent = toCloudEvent({ ...event, metadata });
    expect(sent).toMatchObject({ id: event.eventId, type: 'order.created', data: { total: 9.5 } });
    expect(new CloudEvent({ ...sent }).validate()).toBe(true);
    expect(fromCloudEvent(sent).metadata).toEqual(metadata);
  });
});

describe('the source of a CloudEvent', () => {
  it.each([
    ['order-service', 'order-service'],
    ['shop:orders', 'shop:orders'],
    ['1:orders', '1%3Aorders'],
    ['my orders', 'my%20orders'],
    ['https://shop.example/a%20b?c=d#e', 'https://shop.example/a%20b?c=d#e'],
    ['/shop', '/shop'],
  ])('the source %j is sent as %j', (source, sent) => {
    expect(toCloudEvent({ ...event, source }).source).toBe(sent);
    expect(fromCloudEvent(toCloudEvent({ ...event, source })).source).toBe(source);
  });

  it('the source of another system is sent on as it came, whatever it is', () => {
    const source = fc.oneof(
      fc.webUrl({ withFragments: true }),
      fc.webPath({ size: 'medium' }),
      fc.constant('%41'),
    );
    fc.assert(
      fc.property(source, (given) => {
        fc.pre(given !== '' && given.length < 200);
        const sent = toCloudEvent(fromCloudEvent({ ...toCloudEvent(event), source: given }));
        expect(sent.source).toBe(given);
      }),
    );
  });
});

describe('a CloudEvent of another system', () => {
  const other = {
    specversion: '1.0',
    id: 'e1',
    source: '/shop',
    type: 'order.created',
    subject: 'o1',
    data: 1,
  };

  it('a CloudEvent of another system becomes an event of version 1, correlated with itself', () => {
    expect(fromCloudEvent({ ...other, time: '2023-11-14T23:13:20+01:00' })).toEqual({
      eventType: 'order.created',
      aggregateId: 'o1',
      data: 1,
      eventId: 'e1',
      timestamp: 1_700_000_000_000,
      version: 1,
      source: '/shop',
      metadata: { correlationId: 'e1' },
    });
  });

  it('a CloudEvent of another system keeps its extension attributes as metadata', () => {
    const extensions = { tracestate: 'congo=t61', sampledrate: 30, region: 'eu' };
    const received = fromCloudEvent({ ...other, ...extensions, dataschema: null, comment: undefined });
    expect(received.metadata).toStrictEqual({ correlationId: 'e1', ...extensions });
    expect(toCloudEvent(received)).toMatchObject(extensions);
  });

  it('a CloudEvent may be an object of the parser of its authors', () => {
    const parsed = new CloudEvent({ ...other, tenant: 'acme' });
    expect(fromCloudEvent(parsed)).toMatchObject({ eventId: 'e1', metadata: { tenant: 'acme' } });
  });

  it.each(['application/json', 'application/vnd.shop+json; charset=utf-8', 'text/json'])(
    'a CloudEvent has JSON as its data where its content type is %s',
    (datacontenttype) => {
      expect(fromCloudEvent({ ...other, datacontenttype }).data).toBe(1);
    },
  );

  it.each([
    ['no object', 'text', 'must be an object'],
    ['another version of the format', { ...other, specversion: '0.3' }, 'specversion'],
    ['binary data', { ...other, data_base64: 'AA==' }, 'data_base64'],
    ['another type of content', { ...other, datacontenttype: 'text/xml' }, 'datacontenttype'],
    ['a content that only begins like JSON', { ...other, datacontenttype: 'application/json-seq' }, 'JSON'],
    ['a subject with a control character', { ...other, subject: 'o\u00001' }, 'aggregateId'],
    ['a trace that is none', { ...other, traceparent: 'x\r\ny: z' }, 'traceparent'],
    ['a time that no calendar has', { ...other, time: '2023-13-14T22:13:20Z' }, 'time'],
    ['a version that is no number', { ...other, schemaversion: '2' }, 'version'],
    ['no source', { ...other, source: undefined }, 'source'],
    ['no subject', { ...other, subject: undefined }, 'aggregateId'],
    ['no id', { ...other, id: undefined }, 'eventId'],
    ['a type that is no name', { ...other, type: 'order created' }, 'eventType'],
    ['a time that is none', { ...other, time: 'yesterday' }, 'time'],
    ['metadata that is no JSON', { ...other, metadata: '{' }, 'metadata'],
    ['no data', { ...other, data: undefined }, 'data is missing'],
  ])('a CloudEvent is rejected with %s', (_, given, message) => {
    expect(() => fromCloudEvent(given)).toThrow(InvalidEventError);
    expect(() => fromCloudEvent(given)).toThrow(message);
  });
});
