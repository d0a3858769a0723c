import { API_KEY } from '../gateways.ts';
import { byGateway, forwarded, get, post, type Row, received } from '../row.ts';

const BAD = byGateway(400);
const GET_A = forwarded(received('GET /a'));

/** Headers with which a client would speak for the gateway, or have it drop those of others. */
export const NAMES: readonly Row[] = [
  ['an identity', get('/a', 'X-Holdfast-Identity: a.b.c\r\n'), GET_A],
  ['an identity in capitals', get('/a', 'X-HOLDFAST-IDENTITY: a.b.c\r\n'), GET_A],
  ['an identity twice', get('/a', 'X-Holdfast-Identity: a\r\nx-holdfast-identity: b\r\n'), GET_A],
  ['an identity with an underscore', get('/a', 'X-Holdfast_Identity: a\r\n'), BAD],
  ['an identity with underscores', get('/a', 'X_HOLDFAST_IDENTITY: a\r\n'), BAD],
  ['an address with underscores', get('/a', 'X_Forwarded_For: 192.0.2.1\r\n'), BAD],
  ['a request id with underscores', get('/a', 'X_Request_Id: a\r\n'), BAD],
  [
    'a name with an underscore that resembles none',
    get('/a', 'my_header: 1\r\n'),
    forwarded(received('GET /a', { headers: 'my_header: 1\r\n' })),
  ],
  [
    'an identity and a key that is wrong',
    get('/admin/x', `X-Holdfast-Identity: a\r\n${API_KEY.replace('0', '1')}`),
    byGateway(401),
  ],
  ['a key for a route that needs none, which goes no further', get('/a', API_KEY), GET_A],

  [
    'forwarding headers',
    get(
      '/a',
      'X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: other.example\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /b\r\nX-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1;proto=https;host=other.example\r\n',
    ),
    GET_A,
  ],
  [
    'a caller in the headers of a proxy that is not there',
    get('/a', 'X-Forwarded-User: root\r\nX-Forwarded-Client-Cert: Subject="CN=root"\r\n'),
    GET_A,
  ],
  ['a caller of such a proxy with underscores', get('/a', 'X_Forwarded_User: root\r\n'), BAD],
  [
    'an address in the headers of other proxies',
    get(
      '/a',
      'True-Client-IP: 192.0.2.1\r\nCF-Connecting-IP: 192.0.2.1\r\nX-Client-IP: 192.0.2.1\r\nX-Cluster-Client-IP: 192.0.2.1\r\n',
    ),
    GET_A,
  ],
  ['a request id', get('/a', 'X-Request-ID: mine\r\n'), GET_A],
  ['baggage', get('/a', 'Baggage: user=root\r\n'), GET_A],
  ['a trace state without a trace', get('/a', 'Tracestate: a=b\r\n'), GET_A],
  [
    'credentials for a proxy',
    get('/a', 'Proxy-Authorization: Basic YTpi\r\nProxy-Connection: keep-alive\r\n'),
    GET_A,
  ],
  [
    'credentials for the service',
    get('/a', 'Authorization: Bearer a\r\n'),
    forwarded(received('GET /a', { headers: 'authorization: Bearer a\r\n' })),
  ],
  [
    'names that objects of JavaScript have',
    get('/a', '__proto__: 1\r\nconstructor: 2\r\ntoString: 3\r\n'),
    forwarded(received('GET /a', { headers: '__proto__: 1\r\nconstructor: 2\r\ntostring: 3\r\n' })),
  ],

  ...[
    'authorization',
    'cookie',
    'x-forwarded-for',
    'x-holdfast-identity',
    'host',
    'content-length',
    'x-api-key, keep-alive',
    'keep-alive;a',
    'keep-alive x-real-ip',
  ].map(
    (names): Row => [`a Connection of '${names}'`, get('/a', `Connection: ${names}\r\nCookie: a=b\r\n`), BAD],
  ),
  [
    'a Connection that names a header on a second line',
    get('/a', 'Connection: keep-alive\r\nConnection: authorization\r\n'),
    BAD,
  ],
  [
    'a Connection of TE and Trailer',
    get('/a', 'Connection: TE, Trailer\r\nTE: trailers\r\nTrailer: X-Sum\r\n'),
    GET_A,
  ],
  ['a Connection of commas', get('/a', 'Connection: ,,\r\n'), GET_A],
  ['a Connection of close', get('/a', 'Connection: close\r\n'), forwarded(received('GET /a'), 'ends')],
  [
    'a Connection of close in capitals',
    get('/a', 'CONNECTION: CLOSE\r\n'),
    forwarded(received('GET /a'), 'ends'),
  ],
  ['Keep-Alive', get('/a', 'Keep-Alive: timeout=9999, max=9999\r\n'), GET_A],
  ['a Trailer without trailers (node-http-proxy#1647)', get('/a', 'Trailer: X-Sum\r\n'), GET_A],
  [
    'a Trailer that names framing (node-http-proxy#1647)',
    post('Trailer: Content-Length, Transfer-Encoding, Host\r\nContent-Length: 1\r\n', 'a'),
    forwarded(received('POST /a', { body: 'content-length: 1\r\n\r\na' })),
  ],
  ['a Trailer that is not valid (node-http-proxy#1647)', get('/a', 'Trailer: @@ , ,\r\n'), GET_A],
  ['TE with codings', get('/a', 'TE: gzip, trailers;q=0.5\r\n'), GET_A],
  [
    'a time limit of a client that is longer than that of the route',
    get('/a', 'X-Request-Timeout: 99999999\r\n'),
    GET_A,
  ],
  ['a time limit that is not valid', get('/a', 'X-Request-Timeout: -1, NaN\r\n'), GET_A],
  [
    'cookies on two lines',
    get('/a', 'Cookie: a=1\r\nCookie: b=2\r\n'),
    forwarded(received('GET /a', { headers: 'cookie: a=1; b=2\r\n' })),
  ],
];
