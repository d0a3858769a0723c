import { byGateway, forwarded, get, HOST, type Outcome, post, type Row, received } from '../row.ts';

const INNER = get('/inner');
const RECEIVED = received('POST /a', { body: 'content-length: 1\r\n\r\na' });
const CONTINUED = forwarded(RECEIVED, 'goes on', [100, 200]);
/** Of a client that may wait with its body for ever, or send it all the same. */
const FAILED = byGateway(417, 'ends');

/** Node says 100 before the plugin sees the request. */
function afterContinue(status: number, after: Outcome['after'] = 'goes on'): Outcome {
  return byGateway([100, status], after);
}

function expecting(value: string): string {
  return post(`Expect: ${value}\r\nContent-Length: 1\r\n`, 'a');
}

/** RFC 9110, section 10.1.1. */
export const EXPECTATIONS: readonly Row[] = [
  ['an expectation of something else', expecting('200-ok'), byGateway(417)],
  ['an expectation of several things', expecting('100-continue, 200-ok'), FAILED, afterContinue(417)],
  ['an expectation with a parameter', expecting('100-continue;a=b'), FAILED, afterContinue(417)],
  ['an empty expectation', expecting(''), byGateway(417)],
  ['100-continue with a body that comes at once', expecting('100-continue'), CONTINUED],
  ['100-continue in capitals', expecting('100-CONTINUE'), CONTINUED],
  ['100-continue twice', expecting('100-continue\r\nExpect: 100-continue'), CONTINUED],
  [
    '100-continue without a body',
    get('/a', 'Expect: 100-continue\r\n'),
    forwarded(received('GET /a'), 'ends'),
    forwarded(received('GET /a'), 'goes on', [100, 200]),
  ],
  [
    '100-continue in HTTP/1.0, which has no such thing',
    `POST /a HTTP/1.0\r\n${HOST}Expect: 100-continue\r\nContent-Length: 1\r\n\r\na`,
    forwarded(received('POST /a', { version: '1.0', body: 'content-length: 1\r\n\r\na' }), 'ends'),
  ],
  [
    '100-continue for a body that is too long',
    `POST /short HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n`,
    byGateway(413, 'ends'),
    afterContinue(413, 'waits'),
  ],
  [
    '100-continue for a route that is closed',
    `POST /admin/x HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n`,
    byGateway(401, 'ends'),
    afterContinue(401, 'waits'),
  ],
  [
    '100-continue for a path that is not valid, with a body that is a request',
    `POST /a/../b HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: ${INNER.length}\r\n\r\n${INNER}`,
    byGateway(400, 'ends'),
    afterContinue(400),
  ],
];
