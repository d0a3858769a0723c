import { byGateway, byParser, forwarded, get, HOST, post, type Row, received } from '../row.ts';

const MIB = 1_048_576;
/** The connection stays open for a second, so that the client can read the response. */
const LINGERS = byGateway(413, 'waits');

const short = (headers: string, body: string) => `POST /short HTTP/1.1\r\n${HOST}${headers}\r\n${body}`;

/** Heads beyond 16 KiB, and bodies beyond the bound of their route: 8 bytes for `/short`, else 1 MiB. */
export const SIZES: readonly Row[] = [
  ['a target of 20 KB', get(`/${'a'.repeat(20_000)}`), byParser(431)],
  ['a header of 20 KB', get('/a', `X-A: ${'a'.repeat(20_000)}\r\n`), byParser(431)],
  ['a name of 20 KB', get('/a', `${'a'.repeat(20_000)}: 1\r\n`), byParser(431)],
  ['names and values of 20 KB', get('/a', 'X-A: 1\r\n'.repeat(5_000)), byParser(431)],
  [
    'a body at the bound',
    short('Content-Length: 8\r\n', '12345678'),
    forwarded(received('POST /short', { body: 'content-length: 8\r\n\r\n12345678' })),
  ],
  [
    'a body beyond the bound, and takes the next request',
    short('Content-Length: 9\r\n', '123456789'),
    byGateway(413),
  ],
  [
    'a body beyond the bound that hides a request',
    short(`Content-Length: ${get('/inner').length}\r\n`, get('/inner')),
    byGateway(413),
  ],
  ['a body of 100 MB that never comes', short(`Content-Length: ${100 * MIB}\r\n`, ''), LINGERS],
  ['a body that is longer than that of any route', post(`Content-Length: ${MIB + 1}\r\n`, ''), LINGERS],
  ['a body of the greatest length', post('Content-Length: 999999999999999\r\n', ''), LINGERS],
];
