import { describe, expect, it } from 'vitest';
import { fetchJwks } from '../../../src/gateway/auth/fetch-jwks.ts';
import { json, startServer } from '../../support/server.ts';

const JWKS = { keys: [{ kty: 'EC', kid: 'k1' }] };

describe('the fetch of a JWKS', () => {
  it('gives the JSON of the response', async () => {
    const { origin, requests } = await startServer((_request, response) => json(response, JWKS));
    expect(await fetchJwks(new URL(`${origin}/jwks?tenant=a`))).toEqual(JWKS);
    expect(requests.map(({ method, url }) => [method, url])).toEqual([['GET', '/jwks?tenant=a']]);
  });

  it('follows no redirect', async () => {
    const target = await startServer((_request, response) => json(response, JWKS));
    const { origin } = await startServer((_request, response) => {
      response.writeHead(302, { location: `${target.origin}/jwks` }).end();
    });
    await expect(fetchJwks(new URL(origin))).rejects.toThrow('status 302');
    expect(target.requests).toEqual([]);
  });

  it.each([
    ['another status', 'status 500', 500, JSON.stringify(JWKS)],
    ['no JSON', 'JSON', 200, '<html>'],
    ['an endless body', 'larger than 262144 bytes', 200, ' '.repeat(300 * 1024)],
  ])('fails for %s', async (_name, message, status, body) => {
    const { origin } = await startServer((_request, response) => void response.writeHead(status).end(body));
    await expect(fetchJwks(new URL(origin))).rejects.toThrow(message);
  });

  it('ends the connection of a response that is too large', async () => {
    let closed: Promise<void> | undefined;
    const { origin } = await startServer((request, response) => {
      closed = new Promise((resolve) => request.socket.once('close', () => resolve()));
      const write = () => {
        while (!response.destroyed && response.write(' '.repeat(64 * 1024)));
      };
      response.on('drain', write);
      write();
    });
    await expect(fetchJwks(new URL(origin))).rejects.toThrow('larger than');
    await closed;
  });

  it('ends after its time, before the head of the response and within its body', async () => {
    const silent = await startServer(() => {});
    await expect(fetchJwks(new URL(silent.origin), 50)).rejects.toThrow(/abort/i);
    const slow = await startServer((_request, response) => void response.write('{'));
    await expect(fetchJwks(new URL(slow.origin), 50)).rejects.toThrow(/abort/i);
  });

  it('fails for a connection that breaks', async () => {
    const { origin } = await startServer((_request, response) => {
      response.write('{', () => response.destroy());
    });
    await expect(fetchJwks(new URL(origin))).rejects.toThrow();
  });
});
