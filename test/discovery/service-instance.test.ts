import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { isLoopback } from '../../src/discovery/local-host.ts';
import {
  type InstanceRegistration,
  originOf,
  sameInstance,
  toInstance,
  toRegisteredInstance,
  withChanges,
} from '../../src/discovery/service-instance.ts';
import { ServiceRegistrar } from '../../src/discovery/service-registrar.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { InvalidInstanceError } from '../../src/errors.ts';

const plain: InstanceRegistration = { serviceName: 'user-service', host: '10.0.0.1', port: 8001 };

/** As it comes from a stranger, who knows of no types. */
function register(fields: Record<string, unknown>) {
  return toInstance({ ...plain, ...fields } as InstanceRegistration);
}

function errorOf(fields: Record<string, unknown>): Error {
  try {
    register(fields);
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was accepted');
}

const long = (length: number) => 'a'.repeat(length);

describe('a registration', () => {
  it('a registration is filled in where fields are left out', () => {
    const before = Date.now();
    const instance = toInstance(plain);
    expect(instance).toEqual({
      ...plain,
      instanceId: expect.stringMatching(/^[\da-f]{8}-[\da-f-]{27}$/),
      protocol: 'http',
      healthCheckUrl: undefined,
      metadata: {},
      weight: 1,
      zone: undefined,
      status: 'healthy',
      registeredAt: instance.lastHeartbeat,
      lastHeartbeat: expect.any(Number),
    });
    expect(instance.registeredAt).toBeGreaterThanOrEqual(before);
    expect(toInstance(plain).instanceId).not.toBe(instance.instanceId);
  });

  it('a registration keeps all known fields as they are, and no others', () => {
    const full = {
      ...plain,
      instanceId: 'u1',
      protocol: 'https',
      healthCheckUrl: '/health',
      metadata: { version: '2' },
      weight: 0.5,
      zone: 'eu-1',
      status: 'unknown',
      registeredAt: 1,
      lastHeartbeat: 2,
    };
    expect(register({ ...full, admin: true })).toEqual(full);
  });

  it('a registration cannot be changed afterwards, neither through the instance nor through what was given', () => {
    const metadata = { version: '1' };
    const instance = register({ metadata });
    metadata.version = '2';
    expect(instance.metadata).toEqual({ version: '1' });
    expect(Object.isFrozen(instance)).toBe(true);
    expect(Object.isFrozen(instance.metadata)).toBe(true);
  });

  it.each([null, undefined, 'http://10.0.0.1', 5, true])(
    'a registration must be an object; %o is not',
    (registration) => {
      expect(() => toInstance(registration as never)).toThrow(InvalidInstanceError);
      expect(() => toInstance(registration as never)).toThrow(/must be an object/);
    },
  );

  it.each<[string, Record<string, unknown>]>([
    ['the shortest and longest names', { serviceName: 'a', instanceId: long(128), zone: 'Z:1._-' }],
    ['names that objects have methods of', { serviceName: 'constructor', metadata: { toString: 'x' } }],
    ['the first port', { port: 1 }],
    ['the last port', { port: 65_535 }],
    ['a weight of 0', { weight: 0 }],
    ['the largest weight', { weight: 1_000_000 }],
    ['a host name', { host: 'user_service-1.svc.cluster.local.' }],
    ['the longest host name', { host: `${`${long(62)}.`.repeat(4)}a` }],
    ['an IPv6 address', { host: 'fe80::1' }],
    [
      'as much metadata as is allowed',
      {
        metadata: Object.fromEntries(
          Array.from({ length: 64 }, (_, i) => [`${i}`.padStart(128, '0'), long(1_024)]),
        ),
      },
    ],
    ['a health check by path', { healthCheckUrl: '/health?deep=1' }],
    ['a health check by URL of its own', { healthCheckUrl: 'http://10.0.0.1:8001/health' }],
  ])('a registration may have %s', (_what, fields) => {
    expect(register(fields)).toMatchObject(fields);
  });
});

describe('a registration is rejected, and the field named, with', () => {
  const notNames = [
    '',
    'a b',
    'a\r\nb',
    'a\u0000',
    'a\n',
    '\u0085',
    'a/b',
    '-a',
    '__proto__',
    'ä',
    long(129),
    5,
  ];
  const wrong: readonly (readonly [field: string, value: unknown])[] = [
    ...notNames.map((value) => ['serviceName', value] as const),
    ...notNames.map((value) => ['instanceId', value] as const),
    ...notNames.map((value) => ['zone', value] as const),
    ...[undefined, null, {}, []].map((value) => ['serviceName', value] as const),
    ...[null, {}, ['u1']].map((value) => ['instanceId', value] as const),
    ['host', undefined],
    ['host', null],
    ['host', 2_130_706_433],
    ['host', ''],
    ['host', 'evil.example/'],
    ['host', 'a\r\nHost: evil.example'],
    ['host', 'a\n'],
    ['host', 'user@evil.example'],
    ['host', 'a b'],
    ['host', ' a'],
    ['host', 'http://a'],
    ['host', 'a:80'],
    ['host', 'a?b'],
    ['host', 'a#b'],
    ['host', 'a\\b'],
    ['host', 'a%2fb'],
    ['host', 'a..b'],
    ['host', '999.1.1.1'],
    ['host', '1.2.3.4.5'],
    ['host', '.'],
    ['host', '-a'],
    ['host', 'ä.example'],
    ['host', '[::1'],
    ['host', '::1]:80/['],
    ['host', 'fe80::1%eth0'],
    ['host', ':::1'],
    ['host', long(64)],
    ['host', `${`${long(62)}.`.repeat(4)}aa`],
    ['port', undefined],
    ['port', null],
    ['port', 0],
    ['port', -1],
    ['port', 70_000],
    ['port', 65_536],
    ['port', 80.5],
    ['port', '80'],
    ['port', Number.NaN],
    ['port', Infinity],
    ['port', [80]],
    ['port', 80n],
    ['protocol', 'ftp'],
    ['protocol', 'HTTP'],
    ['protocol', 'http:'],
    ['protocol', 'constructor'],
    ['protocol', null],
    ['protocol', ['http']],
    ['weight', -1],
    ['weight', Number.NaN],
    ['weight', Infinity],
    ['weight', -Infinity],
    ['weight', 1_000_001],
    ['weight', 'heavy'],
    ['weight', '2'],
    ['weight', 1n],
    ['weight', true],
    ['weight', null],
    ['weight', []],
    ['weight', {}],
    ['weight', new Date(5)],
    ['weight', Symbol('a')],
    ['status', 'up'],
    ['status', ''],
    ['status', null],
    ['status', ['healthy']],
    ['registeredAt', Number.NaN],
    ['registeredAt', Infinity],
    ['registeredAt', '2026-01-01'],
    ['registeredAt', null],
    ['lastHeartbeat', Number.NaN],
    ['lastHeartbeat', -Infinity],
    ['lastHeartbeat', '1'],
    ['metadata', null],
    ['metadata', 'a=b'],
    ['metadata', 5],
    ['metadata', { nested: { a: 'b' } }],
    ['metadata', { number: 5 }],
    ['metadata', { bigint: 1n }],
    ['metadata', { list: ['a'] }],
    ['metadata', { nothing: undefined }],
    ['metadata', { [long(129)]: 'a' }],
    ['metadata', { large: long(1_025) }],
    ['metadata', JSON.parse('{ "__proto__": "polluted" }')],
    ['metadata', JSON.parse('{ "__proto__": { "polluted": "yes" } }')],
    ['metadata', Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, 'a']))],
    ['healthCheckUrl', 'http://evil.example/health'],
    ['healthCheckUrl', 'http://169.254.169.254/latest/meta-data'],
    ['healthCheckUrl', 'http://10.0.0.1:22/'],
    ['healthCheckUrl', 'https://10.0.0.1:8001/'],
    ['healthCheckUrl', '//evil.example/health'],
    ['healthCheckUrl', '/\\evil.example/health'],
    ['healthCheckUrl', 'http://user:secret@10.0.0.1:8001/'],
    ['healthCheckUrl', 'http://user@10.0.0.1:8001/'],
    ['healthCheckUrl', 'http://:secret@10.0.0.1:8001/'],
    ['healthCheckUrl', 'http://10.0.0.1:8001@evil.example/'],
    ['healthCheckUrl', 'http://10.0.0.1:8001\\@evil.example/'],
    ['healthCheckUrl', 'blob:http://10.0.0.1:8001/x'],
    ['healthCheckUrl', 'file:///etc/passwd'],
    ['healthCheckUrl', 'javascript:alert(1)'],
    ['healthCheckUrl', '/health\r\nHost: evil.example'],
    ['healthCheckUrl', '/health check'],
    ['healthCheckUrl', '/gesundheitsprüfung'],
    ['healthCheckUrl', `/${long(2_048)}`],
    ['healthCheckUrl', 5],
    ['healthCheckUrl', null],
  ];

  const cases = wrong.map(
    ([field, value]) => [field, inspect(value, { breakLength: Infinity }).slice(0, 60), value] as const,
  );
  it.each(cases)(
    'a registration is rejected, and the field named, with the %s %s',
    (field, _shown, value) => {
      const error = errorOf({ [field]: value });
      expect(error).toBeInstanceOf(InvalidInstanceError);
      expect(error).toMatchObject({ code: 'ERR_INVALID_INSTANCE' });
      expect(error.message).toMatch(new RegExp(`^the ${field} of an instance must be `));
      expect(error.message.length).toBeLessThan(300);
    },
  );
});

it('a prototype cannot be changed through a registration', () => {
  const registration = JSON.parse(
    '{ "serviceName": "a", "host": "a", "port": 80, "__proto__": { "polluted": "yes" } }',
  );
  expect(toInstance(registration)).not.toHaveProperty('polluted');
  expect({}).not.toHaveProperty('polluted');
});

/** Any of the first characters of Unicode, those that control something included. */
const anything = fc.array(fc.nat(0x17f), { maxLength: 12 }).map((codes) => String.fromCharCode(...codes));

const hostile = fc.oneof(
  anything,
  fc.string({ unit: fc.constantFrom(...'a0.-_:/\\@%#?[] \r\n\t\u0000'), maxLength: 12 }),
);

it('whatever host is accepted, the origin made of it has nothing but scheme, host and port', () => {
  fc.assert(
    fc.property(fc.oneof(hostile, fc.domain(), fc.ipV4(), fc.ipV6()), (host) => {
      let origin: string;
      try {
        origin = originOf(register({ host }));
      } catch (error) {
        expect(error).toBeInstanceOf(InvalidInstanceError);
        return;
      }
      expect(origin).toMatch(/^http:\/\/([\w.-]{1,254}|\[[\da-fA-F:.]{2,45}\]):8001$/);
    }),
    { numRuns: 500 },
  );
});

it('whatever health check is accepted, it leads to the instance itself', () => {
  const start = fc.constantFrom(
    '',
    '/',
    '//',
    '/\\',
    '?',
    'http:',
    'http://',
    'http://10.0.0.1:8001',
    'http://10.0.0.1',
  );
  fc.assert(
    fc.property(start, hostile, (prefix, rest) => {
      const healthCheckUrl = prefix + rest;
      let instance: ReturnType<typeof toInstance>;
      try {
        instance = register({ healthCheckUrl });
      } catch (error) {
        expect(error).toBeInstanceOf(InvalidInstanceError);
        return;
      }
      const { host, protocol, username } = new URL(healthCheckUrl, originOf(instance));
      expect({ host, protocol, username }).toEqual({
        host: '10.0.0.1:8001',
        protocol: 'http:',
        username: '',
      });
    }),
    { numRuns: 500 },
  );
});

it('an IPv6 address is kept without brackets, and has them in the origin', () => {
  for (const host of ['2001:db8::1', '[2001:db8::1]']) {
    const instance = register({ host, healthCheckUrl: 'http://[2001:db8::1]:8001/health' });
    expect(instance.host).toBe('2001:db8::1');
    expect(originOf(instance)).toBe('http://[2001:db8::1]:8001');
  }
});

describe('an instance with changes', () => {
  const before = register({
    instanceId: 'u1',
    zone: 'eu-1',
    metadata: { version: '1', team: 'a' },
    registeredAt: 1,
    lastHeartbeat: 2,
  });

  it.each<[string, Record<string, unknown>]>([
    ['weight', { weight: 0 }],
    ['metadata', { metadata: { version: '2' } }],
    ['status', { status: 'unhealthy' }],
    ['whole', { weight: 5, metadata: {}, status: 'unknown' }],
  ])('an instance with changes has another %s, and is as it was otherwise', (_what, changes) => {
    const changed = withChanges(before, changes);
    expect(changed).toEqual({ ...before, ...changes });
    expect(Object.isFrozen(changed)).toBe(true);
    expect(before).toMatchObject({ weight: 1, metadata: { version: '1', team: 'a' }, status: 'healthy' });
  });

  it('an instance without changes is as it was', () => {
    for (const changes of [{}, { weight: undefined, metadata: undefined, status: undefined }])
      expect(withChanges(before, changes)).toEqual(before);
  });

  it.each<[string, unknown]>([
    ['weight', -1],
    ['weight', '2'],
    ['weight', null],
    ['metadata', { a: 5 }],
    ['metadata', null],
    ['status', 'up'],
    ['status', null],
  ])('an instance with changes is rejected if its %s would be %o', (field, value) => {
    const rejected = () => withChanges(before, { [field]: value });
    expect(rejected).toThrow(InvalidInstanceError);
    expect(rejected).toThrow(new RegExp(`^the ${field} of an instance must be `));
  });

  it.each(['host', 'port', 'instanceId', 'healthCheckUrl', 'lastHeartbeat', 'wieght', '__proto__'])(
    'an instance with changes cannot have another %s: that takes a new registration',
    (field) => {
      const rejected = () => withChanges(before, Object.fromEntries([[field, '10.0.0.9']]));
      expect(rejected).toThrow(InvalidInstanceError);
      expect(rejected).toThrow(
        `the field '${field}' of an instance cannot be changed, only its weight, metadata, status: register it again`,
      );
    },
  );

  it.each([null, undefined, 'heavy', 5])(
    'an instance with changes takes an object; %o is rejected',
    (changes) => {
      expect(() => withChanges(before, changes as never)).toThrow(InvalidInstanceError);
    },
  );
});

describe('two descriptions of an instance', () => {
  const one = register({ instanceId: 'u1', registeredAt: 1, lastHeartbeat: 1 });

  it('two descriptions of an instance are the same but for the time of the last heartbeat', () => {
    expect(sameInstance(one, { ...one, lastHeartbeat: 2 })).toBe(true);
  });

  it.each<[string, unknown]>([
    ['host', '10.0.0.2'],
    ['port', 8002],
    ['protocol', 'https'],
    ['weight', 2],
    ['status', 'unhealthy'],
    ['zone', 'eu-1'],
    ['metadata', { a: 'b' }],
    ['healthCheckUrl', '/health'],
    ['registeredAt', 2],
  ])('two descriptions of an instance differ by their %s', (field, value) => {
    expect(sameInstance(one, { ...one, [field]: value })).toBe(false);
  });
});

describe('a field that no instance has', () => {
  const misspelled = { serviceName: 'users', host: '10.0.0.1', port: 1, wieght: 2 };

  it('a field that no instance has is rejected where an instance is registered, with the name that was likely meant', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await expect(discovery.register(misspelled)).rejects.toMatchObject({
      code: 'ERR_INVALID_INSTANCE',
      message: "an instance has no field 'wieght': did you mean 'weight'?",
    });
    await expect(discovery.register({ ...misspelled, wieght: undefined } as never)).rejects.toThrow(/wieght/);
    expect(await discovery.instances('users')).toEqual([]);
    const { serviceName: _, ...rest } = misspelled;
    expect(() => new StaticServiceDiscovery({ users: [rest] })).toThrow(/did you mean 'weight'/);
  });

  it('a field that no instance has is ignored in a registration that is read, since a newer version may have written it', () => {
    const instance = toInstance(misspelled);
    expect(instance).toMatchObject({ host: '10.0.0.1', weight: 1 });
    expect(instance).not.toHaveProperty('wieght');
    const env = { HOLDFAST_INSTANCES: JSON.stringify({ users: [{ host: '10.0.0.1', port: 1, future: 1 }] }) };
    expect(() => StaticServiceDiscovery.fromEnvironment(env)).not.toThrow();
  });
});

describe('the host of a registered instance', () => {
  it.each(['0.0.0.0', '0.0.0.0.', '0', '0x0', '::', '[::]', '0:0:0:0:0:0:0:0', '::0', '::ffff:0.0.0.0'])(
    'the host of a registered instance is not the address to listen on: %s',
    async (host) => {
      const instance = { ...plain, host };
      expect(() => toRegisteredInstance(instance)).toThrow(InvalidInstanceError);
      expect(() => toRegisteredInstance(instance)).toThrow(
        /the host .* callers reach, .* to listen on: .*; got '/,
      );
      const discovery = new InMemoryServiceDiscovery();
      await expect(discovery.register(instance)).rejects.toBeInstanceOf(InvalidInstanceError);
      expect(() => new ServiceRegistrar({ discovery, instance })).toThrow(InvalidInstanceError);
      expect(toInstance(instance)).toMatchObject({ port: 8001 });
    },
  );

  it.each([
    ['127.0.0.1', true],
    ['127.8.9.1', true],
    ['127.1', true],
    ['::1', true],
    ['0:0:0:0:0:0:0:1', true],
    ['::ffff:127.0.0.1', true],
    ['localhost', true],
    ['LOCALHOST.', true],
    ['users.localhost', true],
    ['10.0.0.1', false],
    ['0.0.0.1', false],
    ['1::1', false],
    ['::ffff:10.0.0.1', false],
    ['127.example', false],
    ['localhost.example', false],
    ['notlocalhost', false],
  ])('the host %s of a registered instance is loopback: %s', (host, expected) => {
    expect(isLoopback(toRegisteredInstance({ ...plain, host }).host)).toBe(expected);
  });
});
