import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isName, toInstance } from '../../src/discovery/service-instance.ts';
import { InvalidInstanceError } from '../../src/errors.ts';
import {
  decodeInstance,
  encodeInstance,
  parseChange,
  parseEntry,
  type RegistryEntry,
} from '../../src/redis/registry-format.ts';
import { recordOf, service } from './fake-registry.ts';

function entry(fields: Partial<RegistryEntry>): RegistryEntry {
  return { instanceId: 'u1', record: recordOf('u1'), status: undefined, expiresAt: 1_000_000, ...fields };
}

/** Instances of all kinds that can be registered. */
const instances = fc
  .record({
    instanceId: fc.stringMatching(/^[A-Za-z\d][\w.:-]{0,127}$/),
    host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()),
    port: fc.integer({ min: 1, max: 65_535 }),
    protocol: fc.constantFrom('http' as const, 'https' as const),
    healthCheckUrl: fc.option(fc.constantFrom('/health', '/a?b=c'), { nil: undefined }),
    metadata: fc.dictionary(
      fc.string({ unit: 'binary', maxLength: 128 }).filter((key) => key.length <= 128 && key !== '__proto__'),
      fc.string({ unit: 'binary', maxLength: 500 }),
      { maxKeys: 8 },
    ),
    weight: fc.double({ min: 0, max: 1_000_000, noNaN: true }).map((weight) => weight + 0),
    zone: fc.option(fc.constant('eu-1a'), { nil: undefined }),
    status: fc.constantFrom('healthy' as const, 'unhealthy' as const, 'unknown' as const),
    registeredAt: fc.nat(),
  })
  .map((fields) => toInstance({ ...fields, serviceName: service, lastHeartbeat: 910_000 }));

describe('the encoded form of an instance', () => {
  it('the encoded form of an instance gives the same instance again, whatever it is like', () => {
    fc.assert(
      fc.property(instances, fc.bigInt({ min: 1n, max: 2n ** 53n }), (instance, epoch) => {
        const { instanceId } = instance;
        const json = encodeInstance(instance);
        const trusted = parseEntry(service, entry({ instanceId, record: `${epoch} 90000 ${json}` }));
        expect(trusted).toEqual({ epoch: String(epoch), instance });
        expect({ ...decodeInstance(service, instanceId, json), lastHeartbeat: 910_000 }).toEqual(instance);
      }),
    );
  });

  it('the encoded form of an instance does not repeat what the registry knows by itself', () => {
    const json = encodeInstance(toInstance({ serviceName: service, instanceId: 'u1', host: 'a', port: 1 }));
    const { serviceName, instanceId, lastHeartbeat } = JSON.parse(json);
    expect([serviceName, instanceId, lastHeartbeat]).toEqual([undefined, undefined, undefined]);
  });

  it('the encoded form of an instance is accepted even for the longest instance that can be registered', () => {
    const escaped = '\u0001';
    const metadata = Object.fromEntries(
      Array.from({ length: 64 }, (_, index) => [
        `${escaped.repeat(126)}${String(index).padStart(2, '0')}`,
        escaped.repeat(1024),
      ]),
    );
    const longest = toInstance({
      serviceName: service,
      instanceId: 'u1',
      host: 'a',
      port: 1,
      metadata,
      lastHeartbeat: 0,
    });
    const record = `1 1000000 ${encodeInstance(longest)}`;
    expect(parseEntry(service, entry({ record })).instance).toEqual(longest);
    expect(parseChange(`1 0 -1 registered u1 ${record}`)).toMatchObject({ entry: { record } });
  });

  it('the encoded form of an instance is dated by the clock of Redis', () => {
    const { instance } = parseEntry(service, entry({ record: recordOf('u1'), expiresAt: 1_000_000 }));
    expect(instance.lastHeartbeat).toBe(910_000);
  });

  it('the encoded form of an instance is overridden by the status that a check found', () => {
    const record = recordOf('u1', { status: 'healthy' });
    expect(parseEntry(service, entry({ record, status: 'unhealthy' })).instance.status).toBe('unhealthy');
    expect(parseEntry(service, entry({ record })).instance.status).toBe('healthy');
  });

  it('an entry has the status unknown if its status is one that only a newer version knows', () => {
    expect(parseEntry(service, entry({ status: 'draining' })).instance.status).toBe('unknown');
    const record = recordOf('u1').replace('healthy', 'draining');
    expect(parseEntry(service, entry({ record })).instance.status).toBe('unknown');
    expect(parseEntry(service, entry({ record, status: 'healthy' })).instance.status).toBe('healthy');
  });

  it('the parser of an entry says what is wrong with it if it is invalid', () => {
    const wrong = (fields: Partial<RegistryEntry>) => () => parseEntry(service, entry(fields));
    expect(wrong({ record: 'x' })).toThrow("it must be '<epoch> <ttl> <JSON>'");
    expect(wrong({ record: `1 1 "${'x'.repeat(600_000)}"` })).toThrow('it is longer than 524288 characters');
    expect(wrong({ record: '1 1 {' })).toThrow(SyntaxError);
    expect(wrong({ record: '1 1 "x"' })).toThrow('its JSON must be an object');
    expect(wrong({ record: '1 1 null' })).toThrow(InvalidInstanceError);
    expect(wrong({ record: '1 1 {"host":"a b"}' })).toThrow('the host of an instance must be');
    expect(wrong({ instanceId: 'u 1' })).toThrow('the instanceId of an instance must be');
  });

  it('an entry is parsed as an instance of the service under its id, or is an error, whatever strangers write', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.json().map((json) => `1 90000 ${json}`),
      fc
        .dictionary(
          fc.constantFrom('host', 'port', 'metadata', 'weight', 'status', 'zone', '__proto__', 'instanceId'),
          fc.oneof(fc.jsonValue(), fc.constantFrom('10.0.0.1', 8001, 'healthy')),
        )
        .map((fields) => `1 90000 ${JSON.stringify({ host: 'a', port: 1, ...fields })}`),
    );
    fc.assert(
      fc.property(text, fc.option(fc.string(), { nil: undefined }), (record, status) => {
        try {
          const { instance } = parseEntry(service, entry({ record, status }));
          expect(instance).toMatchObject({ serviceName: service, instanceId: 'u1' });
          expect(toInstance(instance)).toEqual(instance);
          expect(Object.isFrozen(instance)).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
    );
  });
});

describe('a published message', () => {
  it('a published message of each kind is parsed', () => {
    const state = { version: 7, now: 1_000, nextExpiry: 500 };
    const record = recordOf('u1', { metadata: { note: 'two words\nand a line' } });
    expect(parseChange(`7 1000 500 registered u1 ${record}`)).toEqual({
      ...state,
      kind: 'registered',
      entry: { instanceId: 'u1', record, status: undefined, expiresAt: 91_000 },
    });
    expect(parseChange('7 1000 500 expired u1')).toEqual({ ...state, kind: 'expired', instanceIds: ['u1'] });
    expect(parseChange('7 1000 -1 deregistered u1,u2')).toEqual({
      ...state,
      nextExpiry: Infinity,
      kind: 'deregistered',
      instanceIds: ['u1', 'u2'],
    });
    expect(parseChange('7 1000 500 status u1 unhealthy')).toEqual({
      ...state,
      kind: 'status',
      instanceId: 'u1',
      status: 'unhealthy',
    });
    expect(parseChange('7 1000 500 status u1 draining')).toMatchObject({ status: 'unknown' });
    expect(parseChange('7 1000 500 status u1')).toBeUndefined();
  });

  it.each([
    '',
    'PING',
    '7 1000 500',
    '7 1000 500 exploded u1',
    '7 1000 500 expired',
    '7 1000 500 expired u1,',
    '7 1000 500 expired u1 u2',
    '7 1000 500 deregistered ,',
    '7 1000 500 deregistered u1,../u2',
    '-7 1000 500 expired u1',
    '7.5 1000 500 expired u1',
    '7 1000 -2 expired u1',
    ' 7 1000 500 expired u1',
    `7 1000 500 status u1 ${'x'.repeat(1_000_000)}`,
  ])('a published message of others is ignored: %.40s', (text) => {
    expect(parseChange(text)).toBeUndefined();
  });

  it('a published message neither throws nor has an invalid id, whatever strangers publish', () => {
    const words = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.nat().map(String),
      fc.constantFrom('registered', 'expired', 'deregistered', 'status', 'u1', 'u1,u2', '-1', ','),
    );
    const heads = fc.constantFrom('', '7 1000 500 expired ', '7 1000 -1 deregistered ');
    fc.assert(
      fc.property(heads, fc.array(words, { maxLength: 6 }), (head, rest) => {
        const change = parseChange(head + rest.join(' '));
        if (change?.kind === 'expired' || change?.kind === 'deregistered') {
          expect(change.instanceIds.every(isName)).toBe(true);
        }
      }),
    );
  });
});
