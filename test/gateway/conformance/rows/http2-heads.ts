import { DATA, END_STREAM, frame } from '../http2-frames.ts';
import {
  BAD,
  CHUNKED,
  DROPPED,
  fields,
  forwarded,
  type Http2Row,
  head,
  post,
  RESET,
  rejected,
  request,
} from '../http2-row.ts';
import { get } from '../row.ts';

const INNER = get('/inner');

/** RFC 9113, section 8, and James Kettle, "HTTP/2: the sequel is always worse". */
export const HTTP2_HEADS: readonly Http2Row[] = [
  ['a request', request(), forwarded('GET /a')],
  ['a body without a length', post([], 'a'), { result: 200, bytes: CHUNKED }],
  [
    'a body that is a request',
    post([['content-length', String(INNER.length)]], INNER),
    forwarded('POST /a', { body: `content-length: ${INNER.length}\r\n\r\n${INNER}` }),
  ],
  [
    'cookies in several fields',
    request([
      ['cookie', 'a=1'],
      ['cookie', 'b=2'],
    ]),
    forwarded('GET /a', { headers: 'cookie: a=1; b=2\r\n' }),
  ],
  ['te: trailers', request([['te', 'trailers']]), forwarded('GET /a')],

  [
    'a length that is shorter than the body (H2.CL)',
    post([['content-length', '0']], INNER),
    rejected('INTERNAL_ERROR'),
  ],
  ['a length that is longer than the body (H2.CL)', post([['content-length', '9']], 'a'), RESET],
  [
    'a length of a request without a body (H2.0)',
    request([['content-length', '9']], { method: 'POST' }),
    RESET,
  ],
  ['a body for a GET', [...head(fields({}, []), 0), frame(DATA, END_STREAM, 1, INNER)], BAD],
  [
    'two lengths',
    post(
      [
        ['content-length', '1'],
        ['content-length', '2'],
      ],
      'a',
    ),
    RESET,
  ],
  [
    'the same length twice',
    post(
      [
        ['content-length', '1'],
        ['content-length', '1'],
      ],
      'a',
    ),
    RESET,
  ],
  ['a length with a plus', post([['content-length', '+1']], 'a'), RESET],
  ['a length with a line end', post([['content-length', '1\r\nX-A: 1']], 'a'), RESET],
  ['chunked (H2.TE)', post([['transfer-encoding', 'chunked']], `0\r\n\r\n${INNER}`), RESET],
  [
    'chunked with a line end after it (H2.TE)',
    post([['transfer-encoding', 'chunked\r\n']], `0\r\n\r\n${INNER}`),
    RESET,
  ],
  ['a name that resembles that of a coding', post([['transfer_encoding', 'chunked']], 'a'), BAD],

  ['line ends in a value', request([['x-a', `1\r\nTransfer-Encoding: chunked`]]), DROPPED],
  ['a line feed in a value', request([['x-a', '1\nx-b: 2']]), DROPPED],
  ['a carriage return in a value', request([['x-a', '1\rx-b: 2']]), DROPPED],
  ['a NUL in a value', request([['x-a', '1\0']]), DROPPED],
  ['a whole request in a value', request([['x-a', `1\r\n\r\n${INNER}`]]), DROPPED],
  ['a value that begins with a line end', request([['x-a', '\r\n1']]), DROPPED],
  ['line ends in a name', request([['x-a: 1\r\nx-b', '2']]), DROPPED],
  ['a colon in a name', request([['x-a: 1', '2']]), DROPPED],
  ['a space in a name', request([['x a', '1']]), DROPPED],
  ['capitals in a name', request([['X-A', '1']]), RESET],
  ['an empty name', request([['', '1']]), DROPPED],
  ['a byte beyond ASCII in a name', request([['x\xe9', '1']]), DROPPED],

  ['line ends in the path', request([], { path: '/a HTTP/1.1\r\nx-a: 1\r\n\r\n' }), RESET],
  ['a space in the path', request([], { path: '/a HTTP/1.1' }), RESET],
  ['an empty path', request([], { path: '' }), RESET],
  ['a path that is a URL', request([], { path: 'http://other.example/a' }), RESET],
  ['a fragment in the path', request([], { path: '/a#b' }), BAD],
  ['a backslash in the path', request([], { path: '/a\\b' }), BAD],
  ['a byte beyond ASCII in the path', request([], { path: '/\xe9' }), BAD],
  ['a step up in the path', request([], { path: '/a/../admin/x' }), BAD],
  ['a closed path', request([], { path: '//admin/x' }), rejected(401)],
  ['line ends in the method', request([], { method: 'GET /admin/x HTTP/1.1\r\n\r\nGET' }), RESET],
  ['a space in the method', request([], { method: 'GET /admin/x' }), RESET],
  ['TRACE', request([], { method: 'TRACE' }), rejected(405)],
  [
    'CONNECT',
    head([
      [':method', 'CONNECT'],
      [':authority', 'other.example:443'],
    ]),
    rejected(405),
  ],
  [
    'CONNECT for a WebSocket (RFC 8441)',
    head(fields({ method: 'CONNECT' }, [[':protocol', 'websocket']]), 0),
    RESET,
  ],
  ['a method that the gateway does not know', request([], { method: 'GETS' }), rejected(405)],
  [
    'line ends in the scheme',
    head([
      [':method', 'GET'],
      [':scheme', 'http\r\nx-a: 1'],
      [':authority', 'shop.example'],
      [':path', '/a'],
    ]),
    RESET,
  ],
  [
    'a URL as scheme',
    head([
      [':method', 'GET'],
      [':scheme', 'http://other.example/?'],
      [':authority', 'shop.example'],
      [':path', '/a'],
    ]),
    RESET,
  ],

  ['line ends in the authority', request([], { authority: 'shop.example\r\nx-a: 1' }), RESET],
  ['an authority with a user', request([], { authority: 'user@shop.example' }), RESET],
  ['an authority with a path', request([], { authority: 'shop.example/a' }), RESET],
  ['an empty authority', request([], { authority: '' }), RESET],
  ['an authority and the same Host', request([['host', 'shop.example']]), forwarded('GET /a')],
  ['an authority and another Host', request([['host', 'other.example']]), BAD],
  [
    'two Hosts',
    request([
      ['host', 'shop.example'],
      ['host', 'shop.example'],
    ]),
    RESET,
  ],
  [
    'a Host in place of the authority',
    head([
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/a'],
      ['host', 'shop.example'],
    ]),
    forwarded('GET /a'),
  ],
  [
    'neither a Host nor an authority',
    head([
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/a'],
    ]),
    RESET,
  ],

  [
    'no method',
    head([
      [':scheme', 'http'],
      [':authority', 'shop.example'],
      [':path', '/a'],
    ]),
    RESET,
  ],
  [
    'no path',
    head([
      [':method', 'GET'],
      [':scheme', 'http'],
      [':authority', 'shop.example'],
    ]),
    RESET,
  ],
  [
    'no scheme',
    head([
      [':method', 'GET'],
      [':authority', 'shop.example'],
      [':path', '/a'],
    ]),
    RESET,
  ],
  ['two paths', request([[':path', '/admin/x']]), RESET],
  ['two methods', head([[':method', 'POST'], ...fields({}, [])]), RESET],
  [
    'a pseudo header after another one',
    head([
      [':method', 'GET'],
      [':scheme', 'http'],
      [':authority', 'shop.example'],
      ['x-a', '1'],
      [':path', '/a'],
    ]),
    RESET,
  ],
  ['an unknown pseudo header', request([[':x', '1']]), RESET],
  ['the status of a response', request([[':status', '200']]), RESET],
];
