import { byGateway, get, HOST, type Row } from '../row.ts';

const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
const BAD = byGateway(400, 'ends');
const CLOSED = byGateway(403, 'ends');

/** The host of the gateway is another one: pages of its own host may open WebSockets as well. */
function from(origin: string): string {
  return `GET /live HTTP/1.1\r\nHost: gateway.example\r\n${UPGRADE}Origin: ${origin}\r\n\r\n`;
}

/** RFC 6455. `/live` takes WebSockets of pages of `https://shop.example`, other routes take none. */
export const WEBSOCKETS: readonly Row[] = [
  ['a WebSocket for a route that takes none', get('/a', UPGRADE), CLOSED],
  ['a WebSocket and a request in its first bytes', get('/a', UPGRADE) + get('/inner'), CLOSED],
  ['a WebSocket for a path with a step up', get('/live/../admin/x', UPGRADE), BAD],
  ['a WebSocket without a Host', `GET /live HTTP/1.1\r\n${UPGRADE}\r\n`, BAD],
  ['a WebSocket with two Hosts', get('/live', `${HOST}${UPGRADE}`), BAD],
  [
    'a WebSocket with a Connection that names a header',
    get('/live', UPGRADE.replace('Upgrade\r\n', 'Upgrade, cookie\r\n')),
    BAD,
  ],
  ['a WebSocket for an absolute target of another host', get('http://other.example/a', UPGRADE), CLOSED],
  [
    'a WebSocket without a version and a key',
    get('/live', 'Connection: Upgrade\r\nUpgrade: websocket\r\n'),
    byGateway(426, 'ends'),
  ],
  ...[
    'https://evil.example',
    'null',
    'https://shop.example.evil.example',
    'https://evilshop.example',
    'https://a.shop.example',
    'http://shop.example',
    'https://shop.example:8443',
    'https://shop.example/',
    'https://shop.example, https://evil.example',
    '',
  ].map((origin): Row => [`a WebSocket of a page of '${origin}'`, from(origin), CLOSED]),
  [
    'a WebSocket of two origins',
    get('/live', `${UPGRADE}Origin: https://shop.example\r\nOrigin: https://evil.example\r\n`),
    CLOSED,
  ],
];
