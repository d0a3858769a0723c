/**
 * The service behind the proxies, in a process of its own, at two addresses. It reads no more of a request than it
 * must, so that the proxies are measured and not the service.
 */
import { createServer, type Socket } from 'node:net';
import { play } from '../support/part.ts';
import { LARGE, SMALL } from './workloads.ts';

const small = createResponse('application/json', JSON.stringify('x'.repeat(SMALL - 2)));
const large = createResponse('application/octet-stream', 'x'.repeat(LARGE));

function createResponse(type: string, body: string): Buffer {
  return Buffer.from(
    `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
}

/** Gives the length of a request that begins the bytes; undefined if it is not yet whole. */
function lengthOf(bytes: Buffer): number | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end === -1) return undefined;
  const head = bytes.toString('latin1', 0, end);
  if (/^transfer-encoding: chunked/im.test(head)) {
    const last = bytes.indexOf('0\r\n\r\n', end);
    return last === -1 ? undefined : last + 5;
  }
  const [, length = '0'] = /^content-length: *(\d+)/im.exec(head) ?? [];
  const whole = end + 4 + Number(length);
  return bytes.length < whole ? undefined : whole;
}

function serve(socket: Socket): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let length = lengthOf(rest); length !== undefined; length = lengthOf(rest)) {
      socket.write(rest.toString('latin1', 0, 10) === 'GET /large' ? large : small);
      rest = rest.subarray(length);
    }
  });
}

function listen(): Promise<string> {
  const server = createServer({ noDelay: true }, serve);
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      resolve(`http://127.0.0.1:${port}`);
    });
  });
}

await play(async () => {
  const origins = [await listen(), await listen()];
  return { origins: () => origins };
});
