import { BY_PARSER, get, HOST, type Outcome, post, type Row, received } from '../row.ts';

const A = received('GET /a');
const A_BY_1_0 = received('GET /a', { version: '1.0' });

function all(
  by: Outcome['by'],
  statuses: readonly number[],
  bytes: string,
  after: Outcome['after'] = 'goes on',
): Outcome {
  return { by, statuses, bytes, after };
}

const ONE = all('service', [200], A, 'ends');
/** Fastify responds to the bytes after a request in place of that request. */
const BY_FASTIFY = all('parser', [400], A, 'ends');

/** Several requests that are sent at once. */
export const PIPELINES: readonly Row[] = [
  ['three requests', get('/a').repeat(3), all('service', [200, 200, 200], A.repeat(3))],
  [
    'requests with bodies',
    post('Content-Length: 1\r\n', 'a').repeat(2),
    all('service', [200, 200], received('POST /a', { body: 'content-length: 1\r\n\r\na' }).repeat(2)),
  ],
  [
    'a request without a Host, then a valid one',
    `GET /a HTTP/1.1\r\n\r\n${get('/a')}`,
    all('gateway', [400, 200], A),
    BY_PARSER,
  ],
  ['a request for no path, then a valid one', get('/a/../b') + get('/a'), all('gateway', [400, 200], A)],
  [
    'a request that may not be made, then a valid one',
    get('/admin/x') + get('/a'),
    all('gateway', [401, 200], A),
  ],
  [
    'a body beyond the bound, then a valid request',
    `POST /short HTTP/1.1\r\n${HOST}Content-Length: 9\r\n\r\n123456789${get('/a')}`,
    all('gateway', [413, 200], A),
  ],
  ['a valid request, then a malformed one', `${get('/a')}GET /b HTTP/1.1\r\nX A: 1\r\n\r\n`, ONE, BY_FASTIFY],
  ['a malformed request, then a valid one', `GET /b HTTP/1.1\r\nX A: 1\r\n\r\n${get('/a')}`, BY_PARSER],
  [
    'a request in HTTP/1.0, then another one',
    `GET /a HTTP/1.0\r\n${HOST}\r\n${get('/b')}`,
    all('service', [200], A_BY_1_0, 'ends'),
    all('parser', [400], A_BY_1_0, 'ends'),
  ],
  [
    'a request that ends the connection, then another one',
    get('/a', 'Connection: close\r\n') + get('/b'),
    ONE,
    BY_FASTIFY,
  ],
  [
    'a request and line ends after it',
    `${post('Connection: close\r\nContent-Length: 1\r\n', 'a')}\r\n\r\n`,
    all('service', [200], received('POST /a', { body: 'content-length: 1\r\n\r\na' }), 'ends'),
  ],
  [
    'a body that is shorter than its length',
    post('Content-Length: 9\r\n', 'a'),
    all('gateway', [], '', 'waits'),
  ],
];
