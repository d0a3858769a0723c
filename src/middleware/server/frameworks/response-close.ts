import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * The open responses of each connection: one listener of the socket serves all, however many
 * requests a client pipelines.
 */
const openBySocket = new WeakMap<Socket, Set<() => void>>();

/**
 * Calls the listener once, when the response is finished or the client has disconnected. Node 20
 * does not tell all responses of pipelined requests when their connection breaks.
 */
export function onResponseClose(
  request: IncomingMessage,
  response: ServerResponse,
  listener: () => void,
): void {
  // With HTTP/2 the socket belongs to the session, and Node tells each response.
  const open = request.httpVersionMajor < 2 ? openOn(request.socket) : undefined;
  let closed = false;
  const close = () => {
    open?.delete(close);
    if (closed) return;
    closed = true;
    listener();
  };
  open?.add(close);
  response.once('close', close);
}

function openOn(socket: Socket): Set<() => void> {
  let open = openBySocket.get(socket);
  if (open === undefined) {
    const added = new Set<() => void>();
    socket.once('close', () => {
      for (const close of added) close();
    });
    openBySocket.set(socket, added);
    open = added;
  }
  return open;
}

/** The status of a finished response; undefined if it did not finish. */
export function finishedStatus({ writableFinished, statusCode }: ServerResponse): number | undefined {
  return writableFinished ? statusCode : undefined;
}
