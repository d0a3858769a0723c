import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { currentRequestContext, type RequestContext } from '../../../client/propagation.ts';

/** What is asked of each connection that is about to be destroyed, for each response that is under way there. */
const watchers = new WeakMap<Socket, Set<(error: unknown) => void>>();

/**
 * Calls the listener when the server itself breaks a response off, rather than its client: when the response or the
 * request is destroyed, by whomever, or the connection from within the context of the request, as Express does of an
 * error that comes after the head. A connection that a timeout or a shutdown ends says nothing of the handler, which may
 * still be at work.
 *
 * @returns ends the watching
 */
export function whenBrokenOff(
  request: IncomingMessage,
  response: ServerResponse,
  context: RequestContext,
  listener: () => void,
): () => void {
  const { stream } = response as unknown as { stream?: ServerHttp2Stream };
  if (request.httpVersionMajor >= 2 && stream !== undefined) return watchStream(stream, listener);
  const { socket } = request;
  const tell = () => {
    if (!socket.destroyed && !socket.readableEnded) listener();
  };
  intercept(response, 'destroy', tell);
  intercept(request, 'destroy', () => {
    if (!request.complete || !request.readableEnded) tell();
  });
  const all = watchersOf(socket);
  const watcher = (error: unknown) => {
    if (currentRequestContext() === context && !isOfSocket(error)) tell();
  };
  all.add(watcher);
  return () => all.delete(watcher);
}

/** With HTTP/2 each exchange has a stream to itself; those that the client resets are closed before they are destroyed. */
function watchStream(stream: ServerHttp2Stream, listener: () => void): () => void {
  const tell = () => {
    if (!stream.closed && !stream.destroyed && stream.session?.destroyed === false) listener();
  };
  intercept(stream, 'destroy', tell);
  intercept(stream, 'close', tell);
  return () => {};
}

function watchersOf(socket: Socket): Set<(error: unknown) => void> {
  let all = watchers.get(socket);
  if (all === undefined) {
    const added = new Set<(error: unknown) => void>();
    intercept(socket, 'destroy', (error) => {
      for (const watcher of added) watcher(error);
    });
    watchers.set(socket, added);
    all = added;
  }
  return all;
}

/** Whether it is what Node says where reading or writing has failed: then the connection was broken from elsewhere. */
function isOfSocket(error: unknown): boolean {
  const { syscall } = (error ?? {}) as NodeJS.ErrnoException;
  return syscall === 'read' || syscall === 'write';
}

/** Has a function called with the arguments of a method before the method is. */
function intercept(object: object, name: string, before: (...args: unknown[]) => void): void {
  const methods = object as Record<string, (...args: unknown[]) => unknown>;
  const method = methods[name]!;
  methods[name] = (...args) => {
    before(...args);
    return method.apply(object, args);
  };
}
