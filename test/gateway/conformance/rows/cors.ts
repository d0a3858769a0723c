import { get, HOST } from '../row.ts';

/** A probe: the lines of the response that tell a browser who may read it, and whether the service is called. */
export type CorsRow = readonly [
  name: string,
  sent: string,
  status: number,
  lines: readonly string[],
  called: boolean,
];

const ALLOWED = [
  'access-control-allow-credentials: true',
  'access-control-allow-origin: https://shop.example',
  'vary: Origin',
];
/** Without an origin that is allowed, a browser lets no page read the response. */
const NONE = ['access-control-allow-credentials: true', 'vary: Origin'];

/** The lines of a response to a preflight, but for the origin. */
const PREFLIGHT = [
  'access-control-allow-credentials: true',
  'access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE, QUERY',
  'access-control-max-age: 5',
  'vary: Origin, Access-Control-Request-Headers',
];

function from(origin: string, path = '/a'): string {
  return get(path, `Origin: ${origin}\r\n`);
}

function preflight(origin: string, path = '/a', more = 'Access-Control-Request-Method: PUT\r\n'): string {
  return `OPTIONS ${path} HTTP/1.1\r\n${HOST}Origin: ${origin}\r\n${more}\r\n`;
}

/** Origins that look like `https://shop.example`, the only one that is allowed, with credentials. */
export const CORS: readonly CorsRow[] = [
  ['the origin', from('https://shop.example'), 200, ALLOWED, true],
  ...[
    'null',
    'https://shop.example.evil.example',
    'https://evilshop.example',
    'https://a.shop.example',
    'https://shop.example:8443',
    'http://shop.example',
    'https://shop.example/',
    'https://SHOP.example',
    'https://shop.example.',
    'https://shop.example%60.evil.example',
    'https://shop.example_.evil.example',
    'https://shop.example@evil.example',
    'https://evil.example#https://shop.example',
    'https://shop.example, https://evil.example',
    'https://shopxexample',
    '*',
    'file://',
    '',
  ].map((origin): CorsRow => [`the origin '${origin}'`, from(origin), 200, NONE, true]),
  [
    'two origins',
    get('/a', 'Origin: https://shop.example\r\nOrigin: https://evil.example\r\n'),
    200,
    NONE,
    true,
  ],
  ['no origin', get('/a'), 200, NONE, true],
  ['a closed path without a key', from('https://shop.example', '/admin/x'), 401, ALLOWED, false],
  ['a preflight', preflight('https://shop.example'), 204, [...PREFLIGHT, ALLOWED[1]!], false],
  ['a preflight of another origin', preflight('https://evil.example'), 204, PREFLIGHT, false],
  ['a preflight of a closed path', preflight('https://evil.example', '/admin/x'), 204, PREFLIGHT, false],
  ['OPTIONS that is no preflight', preflight('https://evil.example', '/a', ''), 200, NONE, true],
];
