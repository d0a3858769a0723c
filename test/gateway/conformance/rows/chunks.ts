import { brokenOff, chunked, forwarded, get, HOST, type Row, received } from '../row.ts';

/** Gives what the service gets: chunks of the gateway's own, whatever those of the client look like. */
function asChunks(...chunks: string[]): string {
  const body = chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('');
  return received('POST /a', { body: `transfer-encoding: chunked\r\n\r\n${body}0\r\n\r\n` });
}

const BROKEN = brokenOff(400);
const ONE = forwarded(asChunks('a'));
const END = '0\r\n\r\n';
const INNER = get('/inner');

/**
 * RFC 9112, section 7.1. TERM.EXT and the like are the names of Jeppe Bonde Weikop, "Funky chunks":
 * where one server sees the end of a line, another one does not.
 */
export const CHUNKS: readonly Row[] = [
  ['a chunk', chunked(`1\r\na\r\n${END}`), ONE],
  [
    'no chunk but the last one',
    chunked(END),
    forwarded(received('POST /a', { body: 'content-length: 0\r\n\r\n', streamed: true })),
  ],
  [
    'a chunk that contains a request',
    chunked(`${INNER.length.toString(16)}\r\n${INNER}\r\n${END}`),
    forwarded(asChunks(INNER)),
  ],
  ['a size with zeros before it', chunked(`0001\r\na\r\n${END}`), ONE],
  ['a size in capitals', chunked(`A\r\n0123456789\r\n${END}`), forwarded(asChunks('0123456789'))],
  ['a last chunk of several zeros', chunked('1\r\na\r\n000\r\n\r\n'), ONE],
  ['an extension', chunked(`1;a=b\r\na\r\n0;c\r\n\r\n`), ONE],
  ['an extension with a quoted value', chunked(`1;a="b;c"\r\na\r\n${END}`), ONE],
  ['extensions of 20 KB', chunked(`1;a=${'b'.repeat(20_000)}\r\na\r\n${END}`), brokenOff(413), BROKEN],

  ['no size', chunked(`\r\na\r\n${END}`), BROKEN],
  ['a size with 0x', chunked(`0x1\r\na\r\n${END}`), BROKEN],
  ['a size with a plus', chunked(`+1\r\na\r\n${END}`), BROKEN],
  ['a negative size', chunked(`-1\r\na\r\n${END}`), BROKEN],
  ['a size with an underscore', chunked(`0_1\r\na\r\n${END}`), BROKEN],
  ['a size with a space before it', chunked(` 1\r\na\r\n${END}`), BROKEN],
  ['a size with a space after it', chunked(`1 \r\na\r\n${END}`), BROKEN],
  ['a size with a space before its extension', chunked(`1 ;a\r\na\r\n${END}`), BROKEN],
  ['a size with a tab after it', chunked(`1\t\r\na\r\n${END}`), BROKEN],
  ['a size with a NUL after it', chunked(`1\0\r\na\r\n${END}`), BROKEN],
  ['a size that is no number', chunked(`g\r\na\r\n${END}`), BROKEN],
  ['a size with a comma', chunked(`1,1\r\na\r\n${END}`), BROKEN],
  ['a size beyond 64 bits', chunked(`10000000000000001\r\na\r\n${END}`), BROKEN],
  [
    'a size of 16 digits, of which more comes than the route takes',
    `POST /short HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n${INNER}`,
    { by: 'gateway', statuses: [413], bytes: '', after: 'waits' },
  ],

  ['a size that ends with a line feed', chunked(`1\na\r\n${END}`), BROKEN],
  ['a size that ends with a carriage return', chunked(`1\ra\r\n${END}`), BROKEN],
  ['an extension that ends with a line feed (TERM.EXT)', chunked(`1;\na\r\n${END}`), BROKEN],
  ['an extension with a line feed in it (EXT.TERM)', chunked(`1;a\nb\r\na\r\n${END}`), BROKEN],
  ['an extension with a carriage return in it', chunked(`1;a\rb\r\na\r\n${END}`), BROKEN],
  ['an extension with a line feed in quotes', chunked(`1;a="\n"\r\na\r\n${END}`), BROKEN],
  ['an extension with an open quote', chunked(`1;a="b\r\na\r\n${END}`), BROKEN],
  ['an extension without a name', chunked(`1;\r\na\r\n${END}`), BROKEN],
  ['a chunk that ends with a line feed', chunked(`1\r\na\n${END}`), BROKEN],
  ['a chunk that ends with a carriage return', chunked(`1\r\na\r${END}`), BROKEN],
  ['a chunk without a line end (SPILL.TERM)', chunked(`1\r\na${END}`), BROKEN],
  ['a chunk that is longer than its size (TERM.SPILL)', chunked(`1\r\nabc\r\n${END}`), BROKEN],
  ['a chunk that is shorter than its size', chunked(`3\r\na\r\n${END}`), BROKEN],
  ['a last chunk that ends with line feeds', chunked('1\r\na\r\n0\n\n'), BROKEN],
  ['a line feed after the last chunk', chunked('1\r\na\r\n0\r\n\n'), BROKEN],
  ['something after the size of the last chunk', chunked('1\r\na\r\n0g\r\n\r\n'), BROKEN],

  ['a trailer', chunked('1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n'), ONE],
  [
    'a trailer that is announced (node-http-proxy#1647)',
    chunked('1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n', 'Trailer: X-Sum\r\nTE: trailers\r\n'),
    ONE,
  ],
  ['a trailer that is a length', chunked('1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n'), BROKEN],
  ['a trailer that is a coding', chunked('1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n'), BROKEN],
  [
    'trailers that route and authenticate',
    chunked(
      '1\r\na\r\n0\r\nHost: other.example\r\nAuthorization: a\r\nX-Holdfast-Identity: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n',
    ),
    ONE,
  ],
  ['a trailer with a space in its name', chunked('1\r\na\r\n0\r\nX Sum: 1\r\n\r\n'), BROKEN],
  ['a trailer that is folded', chunked('1\r\na\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n'), BROKEN],
  ['a trailer with a bare line feed', chunked('1\r\na\r\n0\r\nX-Sum: 1\nX-B: 2\r\n\r\n'), BROKEN],
  ['trailers of 20 KB', chunked(`1\r\na\r\n0\r\nX-Sum: ${'1'.repeat(20_000)}\r\n\r\n`), brokenOff(431)],
];
