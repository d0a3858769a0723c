import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** What is open on each connection: one listener serves all, however many requests a client pipelines. */
const open = new WeakMap<Socket, Set<() => void>>();

/**
 * Calls the listener once, when the answer is finished or the client has gone. Of pipelined requests Node 20 does not
 * tell all responses when the connection breaks.
 */
export function whenClosed(request: IncomingMessage, response: ServerResponse, listener: () => void): void {
  // With HTTP/2 the socket belongs to the session, and each response is told.
  const waiting = request.httpVersionMajor < 2 ? openOn(request.socket) : undefined;
  let closed = false;
  const close = () => {
    waiting?.delete(close);
    if (closed) return;
    closed = true;
    listener();
  };
  waiting?.add(close);
  response.once('close', close);
}

function openOn(socket: Socket): Set<() => void> {
  let waiting = open.get(socket);
  if (waiting === undefined) {
    const all = new Set<() => void>();
    socket.once('close', () => {
      for (const close of all) close();
    });
    open.set(socket, all);
    waiting = all;
  }
  return waiting;
}

/** The status of an answer that was finished; undefined of one that was not. */
export function finishedStatus({ writableFinished, statusCode }: ServerResponse): number | undefined {
  return writableFinished ? statusCode : undefined;
}
