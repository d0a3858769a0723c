import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';

/** Milliseconds that a client has to take a response and to end the connection. */
const END_TIMEOUT = 10_000;

/** Renders the head of a response. @param headers names and values in turn */
export function renderHead(status: number, headers: readonly string[]): string {
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`;
  for (let index = 0; index < headers.length; index += 2)
    head += `${headers[index]}: ${headers[index + 1]}\r\n`;
  return `${head}\r\n`;
}

/** Sends the last response on a connection that has left Node's parser, and ends the connection. */
export function sendLast(
  socket: Socket,
  status: number,
  headers: readonly string[],
  body: string | Readable,
): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.write(renderHead(status, ['connection', 'close', ...headers]), 'latin1');
  if (typeof body === 'string') {
    socket.end(body);
    endSoon(socket);
    return;
  }
  body.once('error', () => socket.destroy()).once('end', () => endSoon(socket));
  socket.once('close', () => body.destroy());
  body.pipe(socket);
}

/**
 * Waits for the client to end the connection too, for a while, and reads on meanwhile: a connection
 * that is closed with unread bytes is reset, which can cost the client the response.
 */
export function endSoon(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), END_TIMEOUT).unref();
  socket.resume().once('close', () => clearTimeout(timer));
}
