import { describe, expect, it } from 'vitest';
import { startRecordedGateway } from '../../support/gateway.ts';

const HOST = 'Host: shop.example\r\n';

/** Sends bytes, and gives the status of the response, what came of it, and what the service has received. */
async function send(bytes: string) {
  const { upstream, open } = await startRecordedGateway();
  const client = await open();
  client.send(bytes);
  const status = await client.status();
  return { status, received: client.received, upstream, client };
}

describe('a request that Node takes, and a gateway must not', () => {
  it.each([
    ['HTTP/0.9', 'GET /\r\n\r\n', 400],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['an empty Host', 'GET / HTTP/1.1\r\nHost:\r\n\r\n', 400],
    ['two Hosts', `GET / HTTP/1.1\r\n${HOST}Host: other.example\r\n\r\n`, 400],
    ['the same Host twice', `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
    ['a Host with a user', 'GET / HTTP/1.1\r\nHost: a@shop.example\r\n\r\n', 400],
    ['a Host with a path', 'GET / HTTP/1.1\r\nHost: shop.example/a\r\n\r\n', 400],
    ['a list as Host', 'GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n', 400],
    ['a second Host for an absolute target', `GET http://shop.example/ HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
    ['a target with another scheme', `GET ftp://shop.example/ HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a target with a user', `GET http://a@shop.example/ HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a target that is no path', `GET shop HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a target with a star', `GET * HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a fragment', `GET /a#b HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a fragment in the query', `GET /a?b#c HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a backslash', `GET /a\\b HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a backslash in the query', `GET /a?b\\c HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a tab in the target', `GET /a\tb HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a byte beyond ASCII in the target', `GET /\xe9 HTTP/1.1\r\n${HOST}\r\n`, 400],
    [
      'Transfer-Encoding in HTTP/1.0',
      `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      400,
    ],
    [
      'a coding before chunked',
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
      400,
    ],
    [
      'Transfer-Encoding twice',
      `POST / HTTP/1.1\r\n${HOST}${'Transfer-Encoding: chunked\r\n'.repeat(2)}\r\n0\r\n\r\n`,
      400,
    ],
    ['identity as Transfer-Encoding', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n\r\n`, 400],
    ['another expectation', `POST / HTTP/1.1\r\n${HOST}Expect: 200-ok\r\nContent-Length: 1\r\n\r\na`, 417],
    ['TRACE', `TRACE / HTTP/1.1\r\n${HOST}\r\n`, 405],
    ['CONNECT', `CONNECT other.example:443 HTTP/1.1\r\n${HOST}\r\n`, 405],
    ['two Content-Types', `GET / HTTP/1.1\r\n${HOST}Content-Type: a/b\r\nContent-Type: a/c\r\n\r\n`, 400],
    [
      'two Idempotency-Keys',
      `POST / HTTP/1.1\r\n${HOST}Idempotency-Key: "a"\r\nIdempotency-Key: "b"\r\n\r\n`,
      400,
    ],
    ['a GET with a body', `GET / HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\na`, 400],
    ['a HEAD with a body', `HEAD / HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\na`, 400],
    ['a GET with chunks', `GET / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    [
      'a Connection that names a header',
      `GET / HTTP/1.1\r\n${HOST}Connection: close, X-Real-IP\r\n\r\n`,
      400,
    ],
    ['a Connection that names Host', `GET / HTTP/1.1\r\n${HOST}Connection: host\r\n\r\n`, 400],
    ['an identity with an underscore', `GET / HTTP/1.1\r\n${HOST}X_Holdfast_Identity: a\r\n\r\n`, 400],
    [
      'a forwarding header with underscores',
      `GET / HTTP/1.1\r\n${HOST}X_Forwarded_For: 1.1.1.1\r\n\r\n`,
      400,
    ],
    ['an unknown version', `GET / HTTP/1.2\r\n${HOST}\r\n`, 400],
  ])('is rejected for %s, and the service gets nothing of it', async (_name, bytes, expected) => {
    const { status, received, upstream } = await send(bytes);
    expect(status).toBe(expected);
    expect(received).toMatch(/content-type: application\/problem\+json/);
    expect(upstream.bytes).toBe('');
  });

  it('is taken in absolute form, whose host takes the place of Host and chooses no service', async () => {
    const { status, upstream } = await send(
      'GET http://other.example/a?b HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    );
    expect(status).toBe(200);
    expect(upstream.requestLines).toEqual(['GET /a?b HTTP/1.1']);
    expect(upstream.bytes).toMatch(/^x-forwarded-host: other\.example\r$/m);
  });

  it('is responded to by the gateway where it is OPTIONS for the whole server', async () => {
    const { status, upstream } = await send(`OPTIONS * HTTP/1.1\r\n${HOST}\r\n`);
    expect(status).toBe(204);
    expect(upstream.bytes).toBe('');
  });

  it('is taken without the upgrade where it asks for another protocol than WebSocket', async () => {
    const { status, upstream } = await send(
      `GET /a HTTP/1.1\r\n${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n`,
    );
    expect(status).toBe(200);
    expect(upstream.bytes).not.toMatch(/^(upgrade|http2-settings|connection: upgrade)/im);
  });

  it('is taken with a body for a GET where the route says so', async () => {
    const { upstream, open } = await startRecordedGateway({
      routes: [{ path: '/*', service: 'shop', auth: false, getBody: 'forward' }],
    });
    const client = await open();
    client.send(`GET /a HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\nhi`);
    expect(await client.status()).toBe(200);
    expect(upstream.bytes).toMatch(/\r\ncontent-length: 2\r\n\r\nhi$/);
  });
});

describe('a request that the parser of Node rejects', () => {
  it.each([
    [
      'both lengths',
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ['two lengths', `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab`],
    ['the same length twice', `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\na`],
    ['a list of lengths', `POST / HTTP/1.1\r\n${HOST}Content-Length: 1, 1\r\n\r\na`],
    ['a signed length', `POST / HTTP/1.1\r\n${HOST}Content-Length: +1\r\n\r\na`],
    ['a hexadecimal length', `POST / HTTP/1.1\r\n${HOST}Content-Length: 0x1\r\n\r\na`],
    ['a folded header', `GET / HTTP/1.1\r\n${HOST}X-A: a\r\n b\r\n\r\n`],
    ['a folded length', `POST / HTTP/1.1\r\n${HOST}Content-Length:\r\n 1\r\n\r\na`],
    ['a bare line feed', `GET / HTTP/1.1\n${HOST}\n`],
    ['a space before the colon', `GET / HTTP/1.1\r\n${HOST}Content-Length : 1\r\n\r\na`],
    ['a space in a name', `GET / HTTP/1.1\r\n${HOST}X A: 1\r\n\r\n`],
    ['a NUL in a value', `GET / HTTP/1.1\r\n${HOST}X-A: a\0b\r\n\r\n`],
    ['a carriage return in a value', `GET / HTTP/1.1\r\n${HOST}X-A: a\rb\r\n\r\n`],
    [
      'chunked that is not the last coding',
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`,
    ],
    [
      'a vertical tab in Transfer-Encoding',
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`,
    ],
    ['a space in the target', `GET /a b HTTP/1.1\r\n${HOST}\r\n`],
    ['an unknown method', `GETS / HTTP/1.1\r\n${HOST}\r\n`],
    ['no method', ` / HTTP/1.1\r\n${HOST}\r\n`],
    ['a line before the headers that begins with a space', `GET / HTTP/1.1\r\n X-A: 1\r\n${HOST}\r\n`],
  ])('is rejected for %s, and the service gets nothing of it', async (_name, bytes) => {
    const { status, received, upstream, client } = await send(bytes);
    expect(status).toBe(400);
    expect(received).toMatch(/content-type: application\/problem\+json/);
    expect(upstream.bytes).toBe('');
    await client.waitForEnd();
  });

  it('is rejected for a head that is too long', async () => {
    const { status, upstream } = await send(`GET / HTTP/1.1\r\n${HOST}X-A: ${'a'.repeat(20_000)}\r\n\r\n`);
    expect(status).toBe(431);
    expect(upstream.bytes).toBe('');
  });
});
