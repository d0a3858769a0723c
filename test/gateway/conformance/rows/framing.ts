import { BY_PARSER, byGateway, chunked, forwarded, get, HOST, post, type Row, received } from '../row.ts';

/** A request in the body of another one: it must never come out as a request. */
const INNER = 'GET /inner HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const LENGTH = `Content-Length: ${INNER.length}\r\n`;

const ONE_BYTE = received('POST /a', { body: 'content-length: 1\r\n\r\na' });

const ENDED = byGateway(400, 'ends');
/** The app rejects the bytes after the head once more, as Node takes their framing for malformed. */
const TWICE = byGateway([400, 400], 'ends');

/** RFC 9112, section 6: where a body ends. Names as CL.TE say which length two servers would go by. */
export const FRAMING: readonly Row[] = [
  [
    'both framings (CL.TE)',
    post('Content-Length: 6\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\nG'),
    BY_PARSER,
  ],
  ['both framings (TE.CL)', chunked(`0\r\n\r\n${INNER}`, 'Content-Length: 4\r\n'), BY_PARSER],
  ['both framings, and a length of nothing', chunked(`0\r\n\r\n`, 'Content-Length: 0\r\n'), BY_PARSER],
  ['a body for a GET (0.CL)', get('/a', LENGTH) + INNER, byGateway(400)],
  [
    'a body for a GET in chunks (0.TE)',
    `${get('/a', 'Transfer-Encoding: chunked\r\n')}0\r\n\r\n`,
    byGateway(400),
  ],
  ['a body for a HEAD', `HEAD /a HTTP/1.1\r\n${HOST}${LENGTH}\r\n${INNER}`, byGateway(400)],
  [
    'a body for a GET, and then a request',
    `${get('/a', 'Content-Length: 1\r\n')}a${get('/b')}`,
    { by: 'gateway', statuses: [400, 200], bytes: received('GET /b'), after: 'goes on' },
  ],
  [
    'a body for a GET where the route takes one',
    get('/search', LENGTH) + INNER,
    forwarded(received('GET /search', { body: `content-length: ${INNER.length}\r\n\r\n${INNER}` })),
  ],
  [
    'a request in the body of a POST (CL.0)',
    post(LENGTH, INNER),
    forwarded(received('POST /a', { body: `content-length: ${INNER.length}\r\n\r\n${INNER}` })),
  ],
  [
    'a POST without a length',
    post('', ''),
    forwarded(received('POST /a', { body: 'content-length: 0\r\n\r\n' })),
  ],
  [
    'a POST without a length that has a body all the same',
    post('', INNER),
    {
      by: 'service',
      statuses: [200, 200],
      bytes: received('POST /a', { body: 'content-length: 0\r\n\r\n' }) + received('GET /inner'),
      after: 'goes on',
    },
  ],
  ['a length with zeros before it', post('Content-Length: 0001\r\n', 'a'), forwarded(ONE_BYTE)],

  ['two lengths', post('Content-Length: 1\r\nContent-Length: 2\r\n', 'ab'), BY_PARSER],
  ['the same length twice', post('Content-Length: 1\r\nContent-Length: 1\r\n', 'a'), BY_PARSER],
  ['a list of lengths', post('Content-Length: 1, 2\r\n', 'ab'), BY_PARSER],
  ['a list of equal lengths', post('Content-Length: 1, 1\r\n', 'a'), BY_PARSER],
  ['an empty length', post('Content-Length:\r\n', ''), BY_PARSER],
  ['a length with a plus', post('Content-Length: +1\r\n', 'a'), BY_PARSER],
  ['a negative length', post('Content-Length: -1\r\n', 'a'), BY_PARSER],
  ['a length with a space in it', post('Content-Length: 1 0\r\n', '0123456789'), BY_PARSER],
  ['a length with an underscore', post('Content-Length: 1_0\r\n', '0123456789'), BY_PARSER],
  ['a hexadecimal length', post('Content-Length: 0x1\r\n', 'a'), BY_PARSER],
  ['a length with an exponent', post('Content-Length: 1e1\r\n', '0123456789'), BY_PARSER],
  ['a length with a fraction', post('Content-Length: 1.0\r\n', 'a'), BY_PARSER],
  ['a length in quotes', post('Content-Length: "1"\r\n', 'a'), BY_PARSER],
  ['a length beyond 64 bits', post('Content-Length: 18446744073709551617\r\n', 'a'), BY_PARSER],
  [
    'a length beyond what a number holds',
    post('Content-Length: 9007199254740993\r\n', 'a'),
    byGateway(400, 'waits'),
  ],
  ['a length on a folded line', post('Content-Length:\r\n 1\r\n', 'a'), BY_PARSER],
  ['a length with a space before the colon', post('Content-Length : 1\r\n', 'a'), BY_PARSER],
  ['a length with a tab before the colon', post('Content-Length\t: 1\r\n', 'a'), BY_PARSER],
  ['a length with a NUL after it', post('Content-Length: 1\0\r\n', 'a'), BY_PARSER],
  ['spaces around a length', post('Content-Length: \t 1 \t\r\n', 'a'), forwarded(ONE_BYTE)],
  [
    'a name that resembles that of a length',
    post('Content_Length: 9\r\nContent-Length: 1\r\n', 'a'),
    byGateway(400),
  ],

  ['a coding before chunked', post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), ENDED],
  ['a coding after chunked', post('Transfer-Encoding: chunked, gzip\r\n', '0\r\n\r\n'), BY_PARSER],
  ['chunked twice (TE.TE)', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'), BY_PARSER],
  [
    'chunked on two lines',
    post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    ENDED,
  ],
  [
    'chunked and a coding that does not exist (TE.TE)',
    post('Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n', '0\r\n\r\n'),
    BY_PARSER,
  ],
  [
    'a coding that does not exist, and chunked (TE.TE)',
    post('Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    ENDED,
  ],
  ['a coding that is not chunked', post('Transfer-Encoding: gzip\r\n', ''), ENDED, TWICE],
  ['a coding that begins like chunked', post('Transfer-Encoding: chunkedx\r\n', ''), ENDED, TWICE],
  ['a coding that ends like chunked', post('Transfer-Encoding: xchunked\r\n', ''), ENDED, TWICE],
  ['identity as coding', post('Transfer-Encoding: identity\r\n', ''), ENDED, TWICE],
  ['no coding', post('Transfer-Encoding:\r\n', ''), BY_PARSER],
  ['a comma before chunked', post('Transfer-Encoding: , chunked\r\n', '0\r\n\r\n'), ENDED],
  ['a comma after chunked', post('Transfer-Encoding: chunked,\r\n', '0\r\n\r\n'), BY_PARSER],
  ['chunked with a parameter', post('Transfer-Encoding: chunked;a=b\r\n', '0\r\n\r\n'), ENDED, TWICE],
  ['chunked in quotes', post('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n'), ENDED, TWICE],
  ['a vertical tab before chunked', post('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n'), BY_PARSER],
  [
    'a space without break before chunked',
    post('Transfer-Encoding: \xa0chunked\r\n', '0\r\n\r\n'),
    ENDED,
    TWICE,
  ],
  ['chunked with a space before the colon', post('Transfer-Encoding : chunked\r\n', '0\r\n\r\n'), BY_PARSER],
  ['chunked on a folded line', post('Transfer-Encoding:\r\n chunked\r\n', '0\r\n\r\n'), BY_PARSER],
  [
    'chunked behind a header with a bare line feed',
    post('X-A: a\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    BY_PARSER,
  ],
  [
    'chunked behind a header with a bare carriage return',
    post('X-A: a\rTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    BY_PARSER,
  ],
  [
    'a name that resembles that of a coding',
    post('Transfer_Encoding: chunked\r\nContent-Length: 1\r\n', 'a'),
    byGateway(400),
  ],
  [
    'chunked in capitals',
    post('TRANSFER-ENCODING: CHUNKED\r\n', '1\r\na\r\n0\r\n\r\n'),
    forwarded(received('POST /a', { body: 'transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n' })),
  ],
  [
    'chunked in HTTP/1.0',
    `POST /a HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    byGateway(400, 'ends'),
  ],
  [
    'chunked in HTTP/1.0 that is to be kept alive',
    `POST /a HTTP/1.0\r\n${HOST}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    byGateway(400, 'ends'),
  ],
];
