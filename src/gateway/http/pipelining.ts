import type { IncomingMessage } from 'node:http';
import type { ClientResponse } from './client-response.ts';

/** Requests of a connection that may wait for those before them. Few clients pipeline at all. */
const MAX_WAITING = 100;

/** How many requests wait on a connection. */
const waiting = new WeakMap<object, number>();

/**
 * Handles a request once those before it on its connection have their responses. Node hands over at once
 * whatever a client has pipelined, and one connection could have hundreds of calls made. One at a time,
 * the effects of requests are in their order too (RFC 9112, section 9.3.2). A client that sends too many
 * ahead loses its connection.
 */
export function handleInTurn(request: IncomingMessage, response: ClientResponse, handle: () => void): void {
  if (hasLeft(response)) return;
  // Node gives a response of HTTP/1 the connection when it is the first in line.
  if (response.stream !== undefined || response.socket !== null) {
    handle();
    return;
  }
  const { socket } = request;
  const count = (waiting.get(socket) ?? 0) + 1;
  waiting.set(socket, count);
  if (count > MAX_WAITING) {
    socket.destroy();
    return;
  }
  response.once('socket', () => {
    waiting.set(socket, waiting.get(socket)! - 1);
    // Node is not done with the response yet; and the client may leave in between.
    process.nextTick(() => {
      if (!hasLeft(response)) handle();
    });
  });
}

/** Whether the client has left, as it may while hooks of an app are waited for. */
function hasLeft({ stream, destroyed }: ClientResponse): boolean {
  return stream?.destroyed ?? destroyed;
}
