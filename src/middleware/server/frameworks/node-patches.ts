/**
 * This file alone replaces methods of Node's objects for the server. They are replaced for a
 * request in the order of this list, so that a later replacement wraps an earlier one:
 *
 * 1. `request.push`: observeChunks, when the request's idempotency key is locked or has a response
 * 2. `request.emit`: bindEvents, when the request is let through
 * 3. `response.writeHead`: markRetriesSpent
 * 4. `response.writeHead`, `write`, `end` and the property `writableEnded`: storeNodeResponse, for
 *    a request with a locked key; it stores the head as it is before markRetriesSpent adds to it
 * 5. `response.destroy`, `request.destroy` and `socket.destroy`, or for HTTP/2 `stream.destroy` and
 *    `stream.close`: onServerAbort, for a request with a locked key
 *
 * On the side of the client, src/middleware/agent-request.ts replaces `request.destroy` of requests
 * that are sent through an http.Agent.
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import {
  currentRequestContext,
  RETRIES_SPENT_HEADER,
  type RequestContext,
} from '../../../client/propagation.ts';
import type { Admission } from '../guard/admission.ts';
import type { KeyLock } from '../idempotency/key-lock.ts';
import { readHeadHeaders } from './head-headers.ts';
import { type Chunk, type ChunkCallback, ResponseBuffer } from './response-buffer.ts';

type Method = (...args: unknown[]) => unknown;

/** Calls a function with each chunk that Node pushes to a request, and with null at its end. */
export function observeChunks(
  message: IncomingMessage,
  onChunk: (chunk: Buffer | string | null, encoding?: BufferEncoding) => void,
): void {
  const { push } = message;
  message.push = (chunk: Buffer | string | null, encoding?: BufferEncoding) => {
    onChunk(chunk, encoding);
    return push.call(message, chunk, encoding);
  };
}

/**
 * Runs the listeners of a request in the context of its admission: Node emits events, such as the
 * end of the body, outside of the context in which the request is handled.
 */
export function bindEvents(message: IncomingMessage, admission: Admission): void {
  const { emit } = message;
  message.emit = (...event: Parameters<IncomingMessage['emit']>) =>
    admission.run(() => emit.apply(message, event));
}

/** Adds the header that tells callers not to retry, if a failed request's retries are spent. */
export function markRetriesSpent(response: ServerResponse, admission: Admission): void {
  const writeHead = response.writeHead as (...head: unknown[]) => ServerResponse;
  response.writeHead = (status: number, ...rest: unknown[]) => {
    if (!response.headersSent && admission.shouldMarkRetriesSpent(status))
      response.setHeader(RETRIES_SPENT_HEADER, '1');
    return writeHead.call(response, status, ...rest);
  };
}

/**
 * Stores a response of node:http under the idempotency key, as it is sent. The end of the response
 * is held back until it is stored, so that no client has seen a response that is not replayed.
 */
export function storeNodeResponse(response: ServerResponse, keyLock: KeyLock): void {
  const write = response.write as (...args: unknown[]) => boolean;
  const end = response.end as (...args: unknown[]) => ServerResponse;
  const writeHead = response.writeHead as (...args: unknown[]) => ServerResponse;
  const body = new ResponseBuffer(keyLock.maxResponseSize);
  let head: { status: number; headers: OutgoingHttpHeaders } | undefined;
  let phase: 'open' | 'storing' | 'ending' = 'open';

  response.writeHead = (...args: unknown[]) => {
    const headers = { ...response.getHeaders(), ...readHeadHeaders(args.at(-1)) };
    const result = writeHead.apply(response, args);
    head = { status: args[0] as number, headers };
    return result;
  };

  response.write = (...args: unknown[]) => {
    // HTTP/2 calls write() for the last chunk when it ends.
    if (phase === 'ending') return write.apply(response, args);
    if (phase === 'storing') return false;
    const [chunk, encoding] = args as [Chunk, BufferEncoding | ChunkCallback | undefined];
    body.add(chunk, encoding);
    return write.apply(response, args);
  };

  response.end = (...args: unknown[]) => {
    if (phase !== 'open') return response;
    const [chunk, encoding] = args as [
      Chunk | ChunkCallback | undefined,
      BufferEncoding | ChunkCallback | undefined,
    ];
    if (chunk !== undefined && chunk !== null && typeof chunk !== 'function') body.add(chunk, encoding);
    phase = 'storing';
    // Over HTTP/2 the head of an aborted response is never sent.
    if (head === undefined) {
      announceLength(response, body.length);
      response.writeHead(response.statusCode);
    }
    const { status, headers } = head!;
    const stored = body.isTooLarge
      ? keyLock.release()
      : keyLock.complete({ status, headers, body: body.bytes() });
    // The application sees a response that has ended.
    Object.defineProperty(response, 'writableEnded', { value: true, configurable: true });
    const finish = () => {
      delete (response as { writableEnded?: boolean | undefined }).writableEnded;
      phase = 'ending';
      end.apply(response, args);
    };
    // Node throws if the body does not fit the announced length; there is no caller any more.
    void Promise.resolve(stored)
      .then(finish)
      .catch((error) => void response.destroy(error));
    return response;
  };
}

/** Announces the length as Node does for a response that ends with its first chunk. */
function announceLength(response: ServerResponse, length: number): void {
  const { statusCode } = response;
  if (statusCode === 204 || statusCode === 304) return;
  if (response.hasHeader('content-length') || response.hasHeader('transfer-encoding')) return;
  response.setHeader('content-length', length);
}

type AbortWatcher = (error: unknown) => void;

/** The watchers of each connection, one for each response in flight, called on its `destroy`. */
const watchersBySocket = new WeakMap<Socket, Set<AbortWatcher>>();

/**
 * Calls the listener when the server itself, rather than its client, aborts a response: when any
 * code destroys the response or the request, or destroys the connection from within the context of
 * the request, as Express does on an error that comes after the head. A connection that a timeout
 * or a shutdown ends says nothing of the handler, which may still be at work.
 *
 * @returns a function that ends the watching
 */
export function onServerAbort(
  request: IncomingMessage,
  response: ServerResponse,
  context: RequestContext,
  listener: () => void,
): () => void {
  const { stream } = response as ServerResponse & { stream?: ServerHttp2Stream | undefined };
  if (request.httpVersionMajor >= 2 && stream !== undefined) return watchStream(stream, listener);
  const { socket } = request;
  const notify = () => {
    if (!socket.destroyed && !socket.readableEnded) listener();
  };
  intercept(response, 'destroy', notify);
  intercept(request, 'destroy', () => {
    if (!request.complete || !request.readableEnded) notify();
  });
  const watchers = watchersOf(socket);
  const watcher = (error: unknown) => {
    if (currentRequestContext() === context && !isSocketError(error)) notify();
  };
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/**
 * Watches the stream that each exchange has to itself over HTTP/2. A stream that the client resets
 * is closed before it is destroyed. When the connection breaks, Node closes its streams itself.
 */
function watchStream(stream: ServerHttp2Stream, listener: () => void): () => void {
  const notify = () => {
    const { session } = stream;
    if (stream.closed || stream.destroyed || session === undefined || session.destroyed) return;
    if (!session.socket.destroyed) listener();
  };
  intercept(stream, 'destroy', notify);
  intercept(stream, 'close', notify);
  return () => {};
}

/** Gives the watchers of a connection, whose `destroy` is replaced once. */
function watchersOf(socket: Socket): Set<AbortWatcher> {
  let watchers = watchersBySocket.get(socket);
  if (watchers === undefined) {
    const added = new Set<AbortWatcher>();
    intercept(socket, 'destroy', (error) => {
      for (const watcher of added) watcher(error);
    });
    watchersBySocket.set(socket, added);
    watchers = added;
  }
  return watchers;
}

/** Whether it is Node's error of a failed read or write: then the connection broke elsewhere. */
function isSocketError(error: unknown): boolean {
  const { syscall } = (error ?? {}) as NodeJS.ErrnoException;
  return syscall === 'read' || syscall === 'write';
}

/** Calls a function with the arguments of a method before each call of the method. */
function intercept(object: object, name: string, before: (...args: unknown[]) => void): void {
  const methods = object as Record<string, Method>;
  const method = methods[name]!;
  methods[name] = (...args) => {
    before(...args);
    return method.apply(object, args);
  };
}
