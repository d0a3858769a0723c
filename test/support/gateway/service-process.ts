/** A service in a process of its own, which responds as its path says, and counts who leaves. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { play } from '../../../bench/support/part.ts';

export interface ServiceCounts {
  /** Requests that have come. */
  readonly received: number;
  /** Responses that were never complete, since their client had left. */
  readonly left: number;
  readonly connections: number;
}

const CHUNK = Buffer.alloc(65_536, 'x');
/** The pace of a slow reader: how many milliseconds it waits after how many bytes. */
const SLOW = { bytes: 4_194_304, wait: 10 };

type Respond = (request: IncomingMessage, response: ServerResponse, argument: string) => unknown;

const RESPONSES: Record<string, Respond> = {
  /** Reads, and never responds. */
  hold: (request) => request.resume(),
  /** Begins, and never ends. */
  begin: (_request, response) => response.write('begun'),
  /** Responds while the body is still on its way. */
  early: (_request, response) => response.end('early'),
  events: sendEvents,
  bytes: sendBytes,
  slow: readSlowly,
};

async function sendEvents(_request: IncomingMessage, response: ServerResponse, count: string): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (let index = 0; index < Number(count); index++) {
    response.write(`data: ${index}\n\n`);
    await pause(100);
  }
  response.end();
}

async function sendBytes(_request: IncomingMessage, response: ServerResponse, count: string): Promise<void> {
  response.writeHead(200, { 'content-length': count });
  for (let left = Number(count); left > 0; left -= CHUNK.length) {
    if (!response.write(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK)) await once(response, 'drain');
  }
  response.end();
}

async function readSlowly(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let count = 0;
  let next = SLOW.bytes;
  for await (const chunk of request) {
    count += chunk.length;
    if (count < next) continue;
    next += SLOW.bytes;
    await pause(SLOW.wait);
  }
  response.end(String(count));
}

async function readWhole(request: IncomingMessage, response: ServerResponse): Promise<void> {
  for await (const _chunk of request);
  response.end('{}');
}

await play(async () => {
  let received = 0;
  let left = 0;
  const server = createServer((request, response) => {
    received++;
    response.on('close', () => {
      if (!response.writableFinished) left++;
    });
    const [, name = '', argument = ''] = request.url!.split('/');
    const responded = (RESPONSES[name] ?? readWhole)(request, response, argument);
    // A client that leaves ends it early.
    if (responded instanceof Promise) responded.catch(() => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    origin: () => origin,
    counts: async (): Promise<ServiceCounts> => {
      const connections = await new Promise<number>((resolve) => {
        server.getConnections((_error, count) => resolve(count));
      });
      return { received, left, connections };
    },
  };
});
