import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type MeshOptions, MeshTargets } from '../../src/client/mesh-target.ts';
import { isName } from '../../src/discovery/service-instance.ts';

function serviceOf(url: string, options?: MeshOptions): string | undefined {
  return new MeshTargets('tests', options).serviceOf(new URL(url));
}

describe('a URL means a service', () => {
  it.each([
    ['http://user-service/users/1?a=b', 'user-service'],
    ['https://user-service/', 'user-service'],
    ['http://user-service:80/', 'user-service'],
    ['http://USER-SERVICE/', 'user-service'],
    ['http://users_v2/', 'users_v2'],
    ['service://user-service/users/1', 'user-service'],
    ['service://User.Service/', 'User.Service'],
    ['service://localhost/', 'localhost'],
  ])('a URL means a service: %s', (url, service) => {
    expect(serviceOf(url)).toBe(service);
    expect(serviceOf(url, { strict: true })).toBe(service);
  });

  it('a URL means a service where the route of the user says so', () => {
    const route = ({ hostname, pathname }: URL) =>
      hostname.endsWith('.internal') ? hostname.split('.')[0] : pathname.split('/')[2];
    expect(serviceOf('https://users.internal:8443/a', { route })).toBe('users');
    expect(serviceOf('https://api.example/api/orders/1', { route })).toBe('orders');
    expect(serviceOf('http://user-service/', { route })).toBeUndefined();
    expect(serviceOf('service://user-service/', { route })).toBe('user-service');
  });
});

describe('a URL means no service', () => {
  it.each([
    'http://example.com/',
    'http://user-service:8080/',
    'http://user-service./',
    'http://localhost/',
    'http://localhost:3000/',
    'http://127.0.0.1/',
    'http://2130706433/',
    'http://0x7f000001/',
    'http://[::1]/',
    'http://-users/',
    'ws://user-service/',
    'ftp://user-service/',
    'data:text/plain,user-service',
  ])('a URL means no service: %s', (url) => {
    expect(serviceOf(url)).toBeUndefined();
    expect(() => serviceOf(url, { strict: true })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_REQUEST' }),
    );
  });
});

describe('a URL is rejected', () => {
  it.each(['service://user-service:80/', 'service://-users/', 'service:///users', 'service:users'])(
    'a URL is rejected if it should be that of a service, and names none: %s',
    (url) => {
      expect(() => serviceOf(url)).toThrow(/service:\/\/name\/path/);
    },
  );

  it.each(['', 'a/b', 'user service', 1, {}])(
    'a URL is rejected if its route gives a value that is no name: %j',
    (name) => {
      expect(() => serviceOf('http://a.example/', { route: () => name as string })).toThrow(/no name/);
    },
  );

  it.each([{ route: 'user-service' }, { strict: 'yes' }])(
    'a URL is rejected with options that are none: %o',
    (options) => {
      expect(() => new MeshTargets('tests', options as never)).toThrow(/tests option/);
    },
  );
});

it('a URL of the web with a dot, a port or an address never means a service', () => {
  const scheme = fc.constantFrom('http://', 'https://');
  const authority = fc.webAuthority({ withIPv4: true, withIPv6: true, withPort: true });
  const rest = fc.stringMatching(/^(\/[\w.:@%-]*)*(\?[\w.:@%/=&]*)?(#[\w.:@%/?]*)?$/);
  fc.assert(
    fc.property(scheme, authority, rest, (...parts) => {
      const text = parts.join('');
      const url = new URL(text);
      const service = serviceOf(text);
      expect(service).toBeUndefined();
      url.hostname = 'a-b';
      expect(serviceOf(url.href)).toBe(url.port === '' ? 'a-b' : undefined);
    }),
  );
});

it('every name that can be registered, except for one with a colon, is reached by service://', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[A-Za-z\d][\w.-]{0,127}$/), (name) => {
      fc.pre(isName(name));
      expect(serviceOf(`service://${name}/a`)).toBe(name);
    }),
  );
});
