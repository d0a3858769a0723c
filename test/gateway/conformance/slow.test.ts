import { describe, expect, it } from 'vitest';
import { Connection } from './connection.ts';
import { useGateways } from './gateways.ts';
import { END_HEADERS, encode, FrameClient, frame, HEADERS } from './http2-frames.ts';
import { fields } from './http2-row.ts';
import { HOST } from './row.ts';

const running = useGateways({ headersTimeout: 100, requestTimeout: 200 });

describe.concurrent('a gateway with clients that are slow (slowloris)', () => {
  it.each([
    ['nothing', ''],
    ['half a first line', 'GET /a HT'],
    ['half a head', `GET /a HTTP/1.1\r\n${HOST}X-A: `],
    ['half a short body', `POST /a HTTP/1.1\r\n${HOST}Content-Length: 9\r\n\r\na`],
    ['half a long body', `POST /a HTTP/1.1\r\n${HOST}Content-Length: 99999\r\n\r\na`],
    ['half a chunk', `POST /a HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n9\r\na`],
    ['a body and not its end', `POST /a HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n`],
  ])('responds with 408 to %s, and ends the connection', async (_name, sent) => {
    const connection = await Connection.open(running.server);
    connection.send(sent);
    await connection.waitForEnd();
    expect(connection.statuses).toEqual([408]);
    expect(running.service.received.join('')).not.toContain('\r\n0\r\n\r\n');
  });
});

describe('a gateway with clients of HTTP/2 that are slow', () => {
  const running2 = useGateways({ http2: true, keepAliveTimeout: 100, requestTimeout: 200 });
  const POST = encode(fields({ method: 'POST' }, []));

  it.each([
    ['nothing', []],
    ['half a head', [frame(HEADERS, 0, 1, POST)]],
  ])('ends a connection that has sent %s', async (_name, frames) => {
    const client = await FrameClient.open(running2.server);
    client.send(...frames);
    expect(['closed', 'NO_ERROR']).toContain(await client.resultOf(1));
    expect(running2.service.received).toEqual([]);
  });

  it('resets a stream whose body does not come', async () => {
    const client = await FrameClient.open(running2.server);
    client.send(frame(HEADERS, END_HEADERS, 1, POST));
    expect(await client.resultOf(1)).toBe('CANCEL');
    client.close();
  });
});
