/** The response of a service as a client gets it. */
export type ResponseOutcome =
  /** Exactly these bytes, and the connection goes on. */
  | { readonly kind: 'whole'; readonly bytes: string }
  /** A response that breaks off, with its connection, so that nobody takes it for whole. */
  | { readonly kind: 'broken' }
  /** A problem document in its place, and the connection goes on. */
  | { readonly kind: 'problem'; readonly status: number };

/** The bytes that a service sends; `cut` if it ends its connection after them. */
export type ResponseRow = readonly [name: string, sent: string, outcome: ResponseOutcome, cut?: 'cut'];

const BAD: ResponseOutcome = { kind: 'problem', status: 502 };
const BROKEN: ResponseOutcome = { kind: 'broken' };

const CONNECTION = 'Connection: keep-alive\r\nKeep-Alive: timeout=72\r\n';

/** Writes a response as the client gets it. @param headers each with its line end */
function whole(headers: string, body: string, line = '200 OK'): ResponseOutcome {
  const bytes = `HTTP/1.1 ${line}\r\nx-request-id: ID\r\n${headers}Date: DATE\r\n${CONNECTION}\r\n${body}`;
  return { kind: 'whole', bytes };
}

/** Writes a response in chunks as the client gets it. */
function inChunks(body: string, headers = ''): ResponseOutcome {
  const bytes = `HTTP/1.1 200 OK\r\nx-request-id: ID\r\n${headers}Date: DATE\r\n${CONNECTION}Transfer-Encoding: chunked\r\n\r\n${body}`;
  return { kind: 'whole', bytes };
}

function ok(headers: string, body = 'ok'): string {
  return `HTTP/1.1 200 OK\r\n${headers}\r\n${body}`;
}

const TWO = 'content-length: 2\r\n';
const OK = whole(TWO, 'ok');
const CHUNKED = 'transfer-encoding: chunked\r\n';
/** A response that nobody has asked for. It must not become the response to the next request. */
const STRAY = ok('content-length: 5\r\n', 'stray');

/** Responses of services, and what clients must or must not get of them. */
export const RESPONSES: readonly ResponseRow[] = [
  ['a response', ok(TWO), OK],
  ['a response without a reason', `HTTP/1.1 200\r\n${TWO}\r\nok`, OK],
  ['a response of HTTP/1.0', `HTTP/1.0 200 OK\r\n${TWO}\r\nok`, OK],
  ['a response that ends with its connection', ok('', 'ok'), inChunks('2\r\nok\r\n0\r\n\r\n'), 'cut'],
  ['chunks', ok(CHUNKED, '2;a=b\r\nok\r\n0\r\n\r\n'), inChunks('2\r\nok\r\n0\r\n\r\n')],
  ['no content', 'HTTP/1.1 204 No Content\r\n\r\n', whole('', '', '204 No Content')],
  ['an unknown status', `HTTP/1.1 599 Own\r\n${TWO}\r\nok`, whole(TWO, 'ok', '599 unknown')],

  ['a status line that is none', 'nonsense\r\n\r\n', BAD],
  ['a status of two digits', `HTTP/1.1 20 OK\r\n${TWO}\r\nok`, BAD],
  ['a status of four digits', `HTTP/1.1 2000 OK\r\n${TWO}\r\nok`, BAD],
  ['a status that is no number', `HTTP/1.1 2xx OK\r\n${TWO}\r\nok`, BAD],
  ['a status below 100', `HTTP/1.1 099 OK\r\n${TWO}\r\nok`, BAD],
  ['a negative status', `HTTP/1.1 -200 OK\r\n${TWO}\r\nok`, BAD],
  ['no status', `HTTP/1.1\r\n${TWO}\r\nok`, BAD],
  ['another protocol', `ICY 200 OK\r\n${TWO}\r\nok`, BAD],
  ['another version', `HTTP/3.0 200 OK\r\n${TWO}\r\nok`, BAD],
  ['a request', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', BAD],
  [
    'a switch of protocols that nobody has asked for',
    'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n',
    BAD,
  ],
  [
    'a switch to a WebSocket that nobody has asked for',
    'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x02hi',
    BAD,
  ],
  ['100 Continue that nobody has asked for', `HTTP/1.1 100 Continue\r\n\r\n${ok(TWO)}`, BAD],
  ['102 Processing', `HTTP/1.1 102 Processing\r\n\r\n${ok(TWO)}`, OK],
  ['103 Early Hints without hints', `HTTP/1.1 103 Early Hints\r\n\r\n${ok(TWO)}`, OK],
  ['103 Early Hints that are malformed', `HTTP/1.1 103 Early Hints\r\nlink: nonsense\r\n\r\n${ok(TWO)}`, OK],
  ['103 Early Hints with other headers', `HTTP/1.1 103 Early Hints\r\nset-cookie: a=b\r\n\r\n${ok(TWO)}`, OK],

  ['both framings', ok(`${TWO}${CHUNKED}`, '0\r\n\r\n'), BAD],
  ['two lengths', ok('content-length: 1\r\ncontent-length: 2\r\n'), BAD],
  ['the same length twice', ok(`${TWO}${TWO}`), BAD],
  ['a list of lengths', ok('content-length: 2, 2\r\n'), BAD],
  ['an empty length', ok('content-length:\r\n'), BAD],
  ['a negative length', ok('content-length: -2\r\n'), BAD],
  ['a length with a plus', ok('content-length: +2\r\n'), BAD],
  ['a hexadecimal length', ok('content-length: 0x2\r\n'), BAD],
  ['a length beyond 64 bits', ok('content-length: 18446744073709551618\r\n'), BAD],
  ['a coding after chunked', ok('transfer-encoding: chunked, gzip\r\n', '2\r\nok\r\n0\r\n\r\n'), BAD, 'cut'],
  ['a coding that is not chunked', ok('transfer-encoding: gzip\r\n'), BAD, 'cut'],
  ['a coding before chunked', ok('transfer-encoding: gzip, chunked\r\n', '2\r\nok\r\n0\r\n\r\n'), BAD],
  [
    'chunks in HTTP/1.0',
    `HTTP/1.0 200 OK\r\n${CHUNKED}\r\n2\r\nok\r\n0\r\n\r\n`,
    inChunks('2\r\nok\r\n0\r\n\r\n'),
    'cut',
  ],
  [
    'chunked in capitals',
    ok('Transfer-Encoding: Chunked\r\n', '2\r\nok\r\n0\r\n\r\n'),
    inChunks('2\r\nok\r\n0\r\n\r\n'),
  ],

  ['a header with a carriage return (response splitting)', ok(`x-a: a\rset-cookie: b=c\r\n${TWO}`), BAD],
  ['a header with a line feed (response splitting)', ok(`x-a: a\nset-cookie: b=c\r\n${TWO}`), BAD],
  ['a header with a NUL', ok(`x-a: a\0b\r\n${TWO}`), BAD],
  ['a header with a control character', ok(`x-a: a\x01b\r\n${TWO}`), BAD],
  ['a header with bytes beyond ASCII', ok(`x-a: \xe9\r\n${TWO}`), whole(`x-a: \xe9\r\n${TWO}`, 'ok')],
  ['a folded header', ok(`x-a: a\r\n b\r\n${TWO}`), BAD],
  ['a name with a space in it', ok(`x a: a\r\n${TWO}`), BAD],
  ['a name with a space after it', ok(`x-a : a\r\n${TWO}`), BAD],
  ['an empty name', ok(`: a\r\n${TWO}`), BAD],
  ['a line without a colon', ok(`x-a\r\n${TWO}`), BAD],
  ['lines that end with line feeds', 'HTTP/1.1 200 OK\ncontent-length: 2\n\nok', BAD],
  ['a head of 100 KB', ok(`x-a: ${'a'.repeat(100_000)}\r\n${TWO}`), BAD],
  ['a head that has no end', `HTTP/1.1 200 OK\r\n${'x-a: a\r\n'.repeat(5_000)}`, BAD],
  [
    'names that objects of JavaScript have',
    ok(`__proto__: a\r\nconstructor: b\r\n${TWO}`),
    whole(`__proto__: a\r\nconstructor: b\r\n${TWO}`, 'ok'),
  ],

  [
    'headers of the connection',
    ok(
      `connection: keep-alive\r\nkeep-alive: timeout=9\r\nproxy-connection: a\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\nte: a\r\n${TWO}`,
    ),
    OK,
  ],
  [
    'headers that Connection names',
    ok(`connection: close, x-inner\r\nx-inner: a\r\nx-outer: b\r\n${TWO}`),
    whole(`x-outer: b\r\n${TWO}`, 'ok'),
  ],
  [
    'a Connection that names the length',
    ok(`connection: content-length\r\n${TWO}`),
    inChunks('2\r\nok\r\n0\r\n\r\n'),
  ],
  ['a request id of its own', ok(`x-request-id: theirs\r\n${TWO}`), OK],
  [
    'two cookies',
    ok(`set-cookie: a=1\r\nset-cookie: b=2\r\n${TWO}`),
    whole(`set-cookie: a=1\r\nset-cookie: b=2\r\n${TWO}`, 'ok'),
  ],
  ['a Trailer without trailers (http-proxy-middleware#830)', ok(`trailer: x-sum\r\n${TWO}`), OK],
  [
    'trailers of which none may be one',
    ok(CHUNKED, '2\r\nok\r\n0\r\ncontent-length: 9\r\nset-cookie: a=b\r\nhost: a\r\n\r\n'),
    BROKEN,
  ],
  [
    'a trailer',
    ok(CHUNKED, '2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n'),
    inChunks('2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n'),
  ],

  ['a body that is longer than its length', ok(TWO, 'ok and more'), OK],
  ['a second response after the first one', ok(TWO) + STRAY, OK],
  [
    'a response after one without content',
    `HTTP/1.1 204 No Content\r\n\r\n${STRAY}`,
    whole('', '', '204 No Content'),
  ],
  [
    'a body of a response without content',
    `HTTP/1.1 204 No Content\r\n${TWO}\r\nok`,
    whole('', '', '204 No Content'),
  ],
  [
    'a body of a response that says that nothing has changed',
    `HTTP/1.1 304 Not Modified\r\n${TWO}\r\nok${STRAY}`,
    whole(TWO, '', '304 Not Modified'),
  ],
  ['a response after chunks', ok(CHUNKED, '2\r\nok\r\n0\r\n\r\n') + STRAY, inChunks('2\r\nok\r\n0\r\n\r\n')],

  ['nothing at all', '', BAD, 'cut'],
  ['a head that breaks off', 'HTTP/1.1 200 OK\r\ncontent-', BAD, 'cut'],
  ['a body that breaks off before it begins', ok('content-length: 9\r\n', ''), BROKEN, 'cut'],
  ['a body that breaks off', ok('content-length: 9\r\n', 'part'), BROKEN, 'cut'],
  ['chunks that break off', ok(CHUNKED, '4\r\npart\r\n'), BROKEN, 'cut'],
  ['a chunk that breaks off', ok(CHUNKED, '9\r\npart'), BROKEN, 'cut'],
  ['a last chunk that breaks off', ok(CHUNKED, '4\r\npart\r\n0\r\n'), BROKEN, 'cut'],
  ['a chunk whose size is no number', ok(CHUNKED, '4\r\npart\r\ng\r\n\r\n'), BROKEN],
  ['a chunk that is longer than its size', ok(CHUNKED, '2\r\npart\r\n0\r\n\r\n'), BROKEN],
  ['a chunk whose size ends with a line feed', ok(CHUNKED, '4\npart\r\n0\r\n\r\n'), BROKEN],
  ['a trailer that is malformed', ok(CHUNKED, '4\r\npart\r\n0\r\nx a: 1\r\n\r\n'), BROKEN],
];
