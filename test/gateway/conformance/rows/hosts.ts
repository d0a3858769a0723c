import { byGateway, forwarded, get, type Outcome, type Row, received } from '../row.ts';

const BAD = byGateway(400);
const BY_NODE: Outcome = byGateway(400, 'ends');

function host(...values: string[]): string {
  return `GET /a HTTP/1.1\r\n${values.map((value) => `Host: ${value}\r\n`).join('')}\r\n`;
}

function to(name: string): Outcome {
  return forwarded(received('GET /a', { host: name }));
}

/** RFC 9112, section 3.2: exactly one Host, and a valid one. */
export const HOSTS: readonly Row[] = [
  ['a Host', host('shop.example'), to('shop.example')],
  ['a Host with a port', host('shop.example:8080'), to('shop.example:8080')],
  ['a Host that is an IPv4 address', host('192.0.2.1'), to('192.0.2.1')],
  ['a Host that is an IPv6 address', host('[2001:db8::1]:80'), to('[2001:db8::1]:80')],
  ['a Host with spaces around it', host(' \tshop.example \t'), to('shop.example')],
  ['no Host', host(), BAD, BY_NODE],
  [
    'no Host in HTTP/1.0',
    'GET /a HTTP/1.0\r\n\r\n',
    forwarded(received('GET /a', { version: '1.0', host: '' }), 'ends'),
  ],
  ['an empty Host', host(''), BAD],
  ['two Hosts', host('shop.example', 'other.example'), BAD],
  ['the same Host twice', host('shop.example', 'shop.example'), BAD],
  [
    'two Hosts in HTTP/1.0',
    'GET /a HTTP/1.0\r\nHost: a.example\r\nHost: b.example\r\n\r\n',
    byGateway(400, 'ends'),
  ],
  ['a list as Host', host('shop.example, other.example'), BAD],
  ['a Host with a user', host('user@shop.example'), BAD],
  ['a Host with a user and a password', host('user:secret@shop.example'), BAD],
  ['a Host with a path', host('shop.example/a'), BAD],
  ['a Host with a query', host('shop.example?a'), BAD],
  ['a Host with a fragment', host('shop.example#a'), BAD],
  ['a Host with a scheme', host('http://shop.example'), BAD],
  ['a Host with a space in it', host('shop.example other.example'), BAD],
  ['a Host with a backslash', host('shop.example\\a'), BAD],
  ['a Host with a quote', host('shop.example"'), BAD],
  ['a Host with an escape', host('shop%2eexample'), BAD],
  ['a Host with bytes beyond ASCII', host('sh\xf6p.example'), BAD],
  ['a Host with a port that is no number', host('shop.example:80a'), BAD],
  ['a Host with an empty port', host('shop.example:'), BAD],
  ['a Host with two ports', host('shop.example:80:80'), BAD],
  ['a Host that is a port alone', host(':80'), BAD],
  ['a Host with an open bracket', host('[2001:db8::1'), BAD],
  ['a Host with a zone', host('[fe80::1%25eth0]'), BAD],
  ['a Host that begins with a dot', host('.shop.example'), BAD],
  ['a Host with two dots in a row', host('shop..example'), BAD],
  [
    'a name that resembles Host',
    get('/a', 'X-Host: other.example\r\n'),
    forwarded(received('GET /a', { headers: 'x-host: other.example\r\n' })),
  ],
  [
    'another Host for an intermediary',
    get(
      '/a',
      'X-Forwarded-Host: other.example\r\nX-Original-Host: other.example\r\nForwarded: host=other.example\r\n',
    ),
    to('shop.example'),
  ],
];
