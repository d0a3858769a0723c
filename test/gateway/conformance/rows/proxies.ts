import { forwarded, forwardingHeaders, get, type Row, received } from '../row.ts';

interface Sent {
  chain?: string;
  address?: string;
  proto?: string;
  host?: string;
  id?: string;
  trace?: string;
}

/** Gives what the service gets, where the peer at 127.0.0.1 is a proxy that is trusted. */
function from({ id = 'ID', trace = '', ...forwarding }: Sent) {
  const bytes = received('GET /a', { forwarding: forwardingHeaders(forwarding), trace });
  return forwarded(bytes.replace('x-request-id: ID', `x-request-id: ${id}`));
}

const CLIENT = { chain: '192.0.2.1, 127.0.0.1', address: '192.0.2.1' };

/** Headers of a trusted proxy, in which a client behind it may have written what it likes. */
export const PROXIES: readonly Row[] = [
  ['no forwarding headers', get('/a'), from({})],
  ['an address', get('/a', 'X-Forwarded-For: 192.0.2.1\r\n'), from(CLIENT)],
  [
    'an address of IPv6',
    get('/a', 'X-Forwarded-For: 2001:db8::1\r\n'),
    from({ chain: '2001:db8::1, 127.0.0.1', address: '"[2001:db8::1]"' }),
  ],
  [
    'an address behind two proxies that are trusted',
    get('/a', 'X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n'),
    from({ chain: '192.0.2.1, 10.0.0.1, 127.0.0.1', address: '192.0.2.1' }),
  ],
  [
    'an address that its client has put before its own',
    get('/a', 'X-Forwarded-For: 10.0.0.9, 192.0.2.1\r\n'),
    from({ chain: '10.0.0.9, 192.0.2.1, 127.0.0.1', address: '192.0.2.1' }),
  ],
  [
    'an address on two lines',
    get('/a', 'X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.1\r\n'),
    from({ chain: '198.51.100.1, 192.0.2.1, 127.0.0.1', address: '192.0.2.1' }),
  ],
  [
    'something that is no address before an address',
    get('/a', 'X-Forwarded-For: <script>, 192.0.2.1\r\n'),
    from(CLIENT),
  ],
  ['something that is no address', get('/a', 'X-Forwarded-For: unknown\r\n'), from({})],
  ['an empty list', get('/a', 'X-Forwarded-For: ,,\r\n'), from({})],
  ['a scheme', get('/a', 'X-Forwarded-Proto: https\r\n'), from({ proto: 'https' })],
  ['a scheme that is none', get('/a', 'X-Forwarded-Proto: https;a="b"\r\n'), from({})],
  ['a scheme in a list', get('/a', 'X-Forwarded-Proto: https, http\r\n'), from({})],
  ['a host', get('/a', 'X-Forwarded-Host: other.example\r\n'), from({ host: 'other.example' })],
  ['a host that would add to Forwarded', get('/a', 'X-Forwarded-Host: a";for=192.0.2.1\r\n'), from({})],
  ['Forwarded', get('/a', 'Forwarded: for=192.0.2.1;proto=https\r\n'), from({ ...CLIENT, proto: 'https' })],
  [
    'Forwarded that its client has sent',
    get('/a', 'Forwarded: for=198.51.100.1\r\nX-Forwarded-For: 192.0.2.1\r\n'),
    from(CLIENT),
  ],
  [
    'an address in the headers of others',
    get('/a', 'X-Real-IP: 192.0.2.1\r\nTrue-Client-IP: 192.0.2.1\r\n'),
    from({}),
  ],
  ['a request id', get('/a', 'X-Request-ID: theirs-1\r\n'), from({ id: 'theirs-1' })],
  ['a request id that is not valid', get('/a', 'X-Request-ID: a b\xe9\r\n'), from({})],
  ['an identity', get('/a', 'X-Holdfast-Identity: a\r\n'), from({})],
];
