import {
  BY_PARSER,
  byGateway,
  forwarded,
  get,
  HOST,
  type Outcome,
  post,
  type Row,
  received,
} from '../row.ts';

/** Node ends a connection that asks for a tunnel. */
const NONE: Outcome = { by: 'parser', statuses: [], bytes: '', after: 'ends' };
/** Fastify has no route for it. */
const NO_ROUTE = byGateway(404);
const UPGRADE = 'Connection: Upgrade\r\nUpgrade: ';

/** RFC 9110, sections 7.8 and 9: methods and upgrades. */
export const METHODS: readonly Row[] = [
  ['TRACE', `TRACE /a HTTP/1.1\r\n${HOST}\r\n`, byGateway(405)],
  ['TRACK', `TRACK /a HTTP/1.1\r\n${HOST}\r\n`, BY_PARSER],
  ['CONNECT', `CONNECT other.example:443 HTTP/1.1\r\n${HOST}\r\n`, byGateway(405, 'ends'), NONE],
  ['CONNECT for a path', `CONNECT /a HTTP/1.1\r\n${HOST}\r\n`, byGateway(405, 'ends'), NONE],
  [
    'CONNECT with a request after it',
    `CONNECT other.example:443 HTTP/1.1\r\n${HOST}\r\n${get('/b')}`,
    byGateway(405, 'ends'),
    NONE,
  ],
  ['a method that Node does not know', `GETS /a HTTP/1.1\r\n${HOST}\r\n`, BY_PARSER],
  ['a method in small letters', `get /a HTTP/1.1\r\n${HOST}\r\n`, BY_PARSER],
  ['a method with special characters', `G=":<> /a HTTP/1.1\r\n${HOST}\r\n`, BY_PARSER],
  [
    'another method for an intermediary',
    get('/a', 'X-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\n'),
    forwarded(received('GET /a')),
  ],
  [
    'another path for an intermediary',
    get('/a', 'X-Original-URL: /admin/x\r\nX-Rewrite-URL: /admin/x\r\n'),
    forwarded(received('GET /a')),
  ],
  [
    'QUERY (RFC 10008)',
    `QUERY /a HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\na`,
    forwarded(received('QUERY /a', { body: 'content-length: 1\r\n\r\na' })),
  ],
  [
    'DELETE with a body',
    `DELETE /a HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\na`,
    forwarded(received('DELETE /a', { body: 'content-length: 1\r\n\r\na' })),
  ],
  [
    'OPTIONS with a body',
    `OPTIONS /a HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\na`,
    forwarded(received('OPTIONS /a', { body: 'content-length: 1\r\n\r\na' })),
  ],
  ['HEAD', `HEAD /a HTTP/1.1\r\n${HOST}\r\n`, forwarded(received('HEAD /a', { connection: 'close' }))],
  ['PURGE', `PURGE /a HTTP/1.1\r\n${HOST}\r\n`, forwarded(received('PURGE /a')), NO_ROUTE],

  [
    'an upgrade to h2c',
    get(
      '/a',
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n',
    ),
    forwarded(received('GET /a')),
    forwarded(received('GET /a'), 'ends'),
  ],
  [
    'an upgrade to TLS',
    get('/a', `${UPGRADE}TLS/1.0\r\n`),
    forwarded(received('GET /a')),
    forwarded(received('GET /a'), 'ends'),
  ],
  [
    'an upgrade to several protocols',
    get('/a', `${UPGRADE}h2c, foo\r\n`),
    forwarded(received('GET /a')),
    forwarded(received('GET /a'), 'ends'),
  ],
  ['an upgrade without Connection', get('/a', 'Upgrade: h2c\r\n'), forwarded(received('GET /a'))],
  [
    'a Connection of upgrade without an upgrade',
    get('/a', 'Connection: Upgrade\r\n'),
    forwarded(received('GET /a')),
  ],
  [
    'an upgrade with a body',
    post(`${UPGRADE}h2c\r\nContent-Length: 1\r\n`, 'a'),
    forwarded(received('POST /a', { body: 'content-length: 1\r\n\r\na' })),
    byGateway(501, 'ends'),
  ],
];
