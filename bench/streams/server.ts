/** The other side of the streams: `/bytes/<n>` gives so many, `/count` counts what it is sent, `/endless` never ends. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { play } from '../support/part.ts';
import { chunks } from './chunks.ts';

/** Little enough that every buffer on its way waits for more, which is when a client may fail to let go. */
const FIRST = 'x'.repeat(16_384);

await play(async () => {
  const server = createServer((request, response) => {
    const [, what, bytes] = request.url!.split('/');
    if (what === 'bytes') Readable.from(chunks(Number(bytes))).pipe(response);
    else if (what === 'endless') response.write(FIRST);
    else {
      let count = 0;
      request.on('data', (chunk: Buffer) => {
        count += chunk.length;
      });
      request.on('end', () => response.end(String(count)));
    }
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return { port: () => (server.address() as AddressInfo).port };
});
