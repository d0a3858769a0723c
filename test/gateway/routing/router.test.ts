import { describe, expect, it } from 'vitest';
import type { RouteOptions } from '../../../src/gateway/options.ts';
import { compileRoute } from '../../../src/gateway/routing/route.ts';
import { Router } from '../../../src/gateway/routing/router.ts';

function routerOf(...routes: Partial<RouteOptions>[]): Router {
  return new Router(
    routes.map((route, index) =>
      compileRoute({ path: '/', service: `s${index}`, auth: false, ...route }, index, ''),
    ),
  );
}

interface Asked {
  path: string;
  method?: string;
  host?: string;
  headers?: Record<string, string>;
}

function find(router: Router, { path, method = 'GET', host = 'shop.example', headers = {} }: Asked) {
  const { route, values } = router.find({ path, method, host, headers });
  return { service: route.service, values, rewritten: route.rewrite?.(values) };
}

describe('a router', () => {
  it('prefers a literal to a parameter, and that to a wildcard, segment by segment', () => {
    const router = routerOf(
      { path: '/*' },
      { path: '/users/:id' },
      { path: '/users/me' },
      { path: '/users/*' },
    );
    expect(find(router, { path: '/users/me' }).service).toBe('s2');
    expect(find(router, { path: '/users/u1' })).toMatchObject({ service: 's1', values: ['u1'] });
    expect(find(router, { path: '/users/u1/orders' })).toMatchObject({
      service: 's3',
      values: ['u1/orders'],
    });
    expect(find(router, { path: '/orders' })).toMatchObject({ service: 's0', values: ['orders'] });
    expect(find(router, { path: '/' }).service).toBe('s0');
  });

  it('goes back where a more specific way leads nowhere', () => {
    const router = routerOf({ path: '/:a/b/c' }, { path: '/x/:b/d' }, { path: '/x/b/e' });
    expect(find(router, { path: '/x/b/c' })).toMatchObject({ service: 's0', values: ['x'] });
    expect(find(router, { path: '/x/b/d' })).toMatchObject({ service: 's1', values: ['b'] });
  });

  it('takes a path with a slash at its end for the same', () => {
    const router = routerOf({ path: '/admin' }, { path: '/*' });
    expect(find(router, { path: '/admin/' }).service).toBe('s0');
  });

  it('takes a wildcard for what it begins with, too', () => {
    const router = routerOf({ path: '/shop/*', rewrite: '/*' });
    expect(find(router, { path: '/shop' }).rewritten).toBe('/');
    expect(find(router, { path: '/shop/' }).rewritten).toBe('/');
    expect(find(router, { path: '/shop/a/b' }).rewritten).toBe('/a/b');
    expect(() => find(router, { path: '/shopping' })).toThrow(expect.objectContaining({ status: 404 }));
  });

  it('rewrites by name, whatever the order', () => {
    const router = routerOf({ path: '/a/:one/:two/*', rewrite: '/b/:two/x/:one/*' });
    expect(find(router, { path: '/a/1/2/3/4' }).rewritten).toBe('/b/2/x/1/3/4');
  });

  it('passes over a route that does not take the method, and tells which methods there are', () => {
    const router = routerOf({ path: '/a', methods: ['GET'] }, { path: '/a', methods: ['POST'] });
    expect(find(router, { path: '/a', method: 'POST' }).service).toBe('s1');
    expect(find(router, { path: '/a', method: 'HEAD' }).service).toBe('s0');
    expect(() => find(router, { path: '/a', method: 'PUT' })).toThrow(
      expect.objectContaining({ status: 405, headers: { allow: 'GET, HEAD, POST' } }),
    );
  });

  it('prefers the route of a host, then the longer wildcard of hosts, then that of any', () => {
    const router = routerOf(
      { path: '/*' },
      { path: '/*', host: '*.example' },
      { path: '/*', host: '*.shop.example' },
      { path: '/*', host: ['A.shop.example'] },
    );
    expect(find(router, { path: '/', host: 'a.shop.example' }).service).toBe('s3');
    expect(find(router, { path: '/', host: 'b.shop.example' }).service).toBe('s2');
    expect(find(router, { path: '/', host: 'shop.example' }).service).toBe('s1');
    expect(find(router, { path: '/', host: 'example' }).service).toBe('s0');
  });

  it('prefers the route that asks for more headers', () => {
    const router = routerOf({ path: '/' }, { path: '/', headers: { 'X-Beta': '1' } });
    expect(find(router, { path: '/', headers: { 'x-beta': '1' } }).service).toBe('s1');
    expect(find(router, { path: '/', headers: { 'x-beta': '2' } }).service).toBe('s0');
  });

  it('takes the first of two routes that ask for as many headers, but for others', () => {
    const headers = { 'x-a': '1', 'x-b': '2' };
    const router = routerOf({ path: '/', headers: { 'x-b': '2' } }, { path: '/', headers: { 'x-a': '1' } });
    expect(find(router, { path: '/', headers }).service).toBe('s0');
  });

  it.each([
    [[{ path: 'a' }], "routes[0].path must start with a slash; got 'a'"],
    [[{ path: '/a*' }], "routes[0].path may have a '*' only as its last segment"],
    [[{ path: '/:a/:a' }], "routes[0].path has the parameter ':a' twice"],
    [[{ path: '/:' }], "routes[0].path has ':', which is not the name of a parameter"],
    [[{ path: '/a/../b' }], "routes[0].path has the segment '..', which no request can have in its path"],
    [[{ path: '/a', rewrite: '/:b' }], "routes[0].rewrite has ':b', and the path of the route has not"],
    [[{ path: '/a', rewrite: '/*' }], "routes[0].rewrite has a '*', and the path of the route has none"],
  ])('rejects the routes %j', (routes, message) => {
    expect(() => routerOf(...routes)).toThrow(message);
  });

  it('takes a route in plain Unicode', () => {
    expect(find(routerOf({ path: '/café/*' }), { path: '/caf%C3%A9/a' }).service).toBe('s0');
  });
});
