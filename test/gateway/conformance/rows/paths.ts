import { byGateway, forwarded, get, type Row, received } from '../row.ts';

const BAD = byGateway(400);
const CLOSED = byGateway(401);

/** Fastify cannot decode it. */
const BY_FASTIFY = byGateway(400);

function path(written: string, sent = written): readonly [string, ReturnType<typeof forwarded>] {
  return [get(written), forwarded(received(`GET ${sent}`))];
}

/**
 * One path for the gateway and the service. `/admin` is closed, all else is open: a way around the
 * authentication would reach the service.
 */
export const PATHS: readonly Row[] = [
  ['a closed path without a key', get('/admin/x'), CLOSED],
  ['a closed path with a slash at the end', get('/admin/'), CLOSED],
  ['a closed path that begins with slashes', get('///admin/x'), CLOSED],
  ['a closed path with several slashes in it', get('/admin//x'), CLOSED],
  ['a closed path with an escaped letter', get('/%61dmin/x'), CLOSED],
  ['a closed path with an escaped letter in capitals', get('/adm%69n/x'), CLOSED],

  ['a step up', get('/a/../admin/x'), BAD],
  ['a step up beyond the root', get('/../../etc/passwd'), BAD],
  ['a step up at the end', get('/a/..'), BAD],
  ['a step in place', get('/./admin/x'), BAD],
  ['a step in place at the end', get('/a/.'), BAD],
  ['a step up with escaped dots', get('/a/%2e%2e/admin/x'), BAD],
  ['a step up with escaped dots in capitals', get('/a/%2E%2E/admin/x'), BAD],
  ['a step up with one escaped dot', get('/a/.%2e/admin/x'), BAD],
  ['a step in place with an escaped dot', get('/%2e/admin/x'), BAD],
  ['a step up with an escaped slash', get('/a/..%2fadmin/x'), BAD],
  ['a step up with an escaped backslash', get('/a/..%5cadmin/x'), BAD],
  ['a step up with a parameter', get('/a/..;/admin/x'), BAD],
  ['a step up with a named parameter', get('/a/..;b=c/admin/x'), BAD],
  ['a step up with an escaped parameter', get('/a/..%3b/admin/x'), BAD],
  ['a step up with escaped dots and a parameter', get('/a/%2e%2e;/admin/x'), BAD],
  ['a step up that is escaped twice', get('/a/%252e%252e/admin/x'), BAD],
  ['a step up that is escaped three times', get('/a/%25252e%25252e/admin/x'), BAD],
  ['a step up in overlong UTF-8', get('/a/%c0%ae%c0%ae/admin/x'), BAD],
  ['a slash in overlong UTF-8', get('/a/..%c0%af../admin/x'), BAD],
  ['a slash in overlong UTF-8 of three bytes', get('/a%e0%80%afb'), BAD],
  ['a surrogate in UTF-8', get('/a%ed%a0%80'), BAD],
  ['an escape that is no UTF-8', get('/a%ff'), BAD],
  ['a step up with a NUL', get('/a/..%00/admin/x'), BAD],
  ['a step up with a space', get('/a/..%20/admin/x'), BAD],
  ['a step up with a tab', get('/a/..%09/admin/x'), BAD],

  ['an escaped slash', get('/admin%2fx'), BAD],
  ['an escaped slash in capitals', get('/admin%2Fx'), BAD],
  ['an escaped backslash', get('/admin%5cx'), BAD],
  ['an escape of an escape', get('/%2561dmin/x'), BAD],
  ['an escaped NUL', get('/admin%00/x'), BAD],
  ['escaped line ends', get('/a%0d%0aX-A:%201'), BAD],
  ['an escaped DEL', get('/a%7f'), BAD],
  ['a percent sign alone', get('/a%'), BAD],
  ['an escape of one digit', get('/a%2'), BAD],
  ['an escape that is no number', get('/a%zz'), BAD],
  ['an escape of a code point', get('/a%u002e'), BAD],

  ['an escaped percent sign', ...path('/100%25')],
  ['an escaped space', ...path('/a%20b')],
  ['escaped UTF-8', ...path('/%c3%a9', '/%C3%A9')],
  ['an escaped space after a name', ...path('/a..%20/b')],
  ['three dots', ...path('/a/...')],
  ['a name that begins with dots', ...path('/a/..b')],
  ['a name that ends with dots', ...path('/a/b..')],
  ['several slashes', ...path('/a//b///c', '/a/b/c')],
  ['escaped letters', ...path('/%61%7E', '/a~')],
  ['characters that need no escape', ...path("/a!$&'()*+,:=@b")],
  ['capitals, which make another path', ...path('/ADMIN/x')],
  ['a parameter of a segment, without which the path is a closed one', get('/admin;a=b/x'), BAD],
  ['a parameter of a segment', ...path('/a;b=c/x;jsessionid=1')],
  ['a parameter that is a step up', get('/users/..'), BAD],
  ['a parameter with an escaped slash', get('/users/1%2f..%2f..%2fadmin'), BAD],
  ['a parameter with an escaped question mark', ...path('/users/1%3fa=b', '/u/1%3Fa=b')],
  ['a parameter with an escaped fragment', ...path('/users/1%23a', '/u/1%23a')],
  ['a step up where the route takes paths as written', get('/raw/../admin/x'), BAD],
  ['a step up with an escaped dot where the route takes paths as written', get('/raw/%2e%2e/admin/x'), BAD],
  ['an escaped slash where the route takes paths as written', ...path('/raw/a%2fb')],
  ['an escaped step up where the route takes paths as written', ...path('/raw/..%2fadmin/x')],
  ['an escape that is no UTF-8 where the route takes paths as written', ...path('/raw/%e9'), BY_FASTIFY],
];
