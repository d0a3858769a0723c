import { randomUUID } from 'node:crypto';
import {
  createServer,
  type ServerOptions as HttpOptions,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import {
  constants,
  createServer as createHttp2Server,
  createSecureServer,
  type Http2Server,
} from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type AccessLog, withoutQuery } from './access-log.ts';
import { currentResponse } from './http/current-response.ts';
import { plainAddress } from './http/networks.ts';
import { rejectBody } from './http/proxied-response.ts';
import { renderHead } from './http/raw-response.ts';
import { isDiscarding } from './http/request-body.ts';
import { Rejection, toProblem } from './problem.ts';
import type { ServerOptions } from './server-options.ts';
import { asksForWebSocket } from './websocket/handshake.ts';

/** Streams that a connection of HTTP/2 may have at once; Node allows any number. */
const MAX_STREAMS = 128;
/** Bytes of a head: the default of node:http, which for HTTP/2 is four times that. */
const MAX_HEADER_SIZE = 16_384;

/** Milliseconds. Load balancers keep idle connections for a minute: the one in front closes them first. */
const KEEP_ALIVE_TIMEOUT = 72_000;
/** The default of node:http, in milliseconds. */
const REQUEST_TIMEOUT = 300_000;

/** Creates the server of a gateway, whose requests go to the listener, those with `Expect` too. */
export function createHttpServer(
  options: ServerOptions,
  listener: RequestListener,
  accessLog?: AccessLog,
): Server {
  const server = createByProtocol(options, listener);
  // The length of the head bounds their number. Beyond another bound, Node would drop headers silently.
  server.maxHeadersCount = 0;
  if (options.maxConnections !== undefined) server.maxConnections = options.maxConnections;
  // Without these, Node would respond by itself, before routes, authentication and limits.
  server.on('checkContinue', (request, response) => server.emit('request', request, response));
  server.on('checkExpectation', (request, response) => server.emit('request', request, response));
  server.on('connect', (request: IncomingMessage, target: Duplex | ServerResponse) => {
    if (isResponse(target)) listener(request, target);
    else end(target, NO_TUNNEL, accessLog, request);
  });
  return server;
}

/** Over HTTP/2, Node gives a response where it gives a socket else. */
function isResponse(target: Duplex | ServerResponse): target is ServerResponse {
  return 'writeHead' in target;
}

function createByProtocol(options: ServerOptions, listener: RequestListener): Server {
  const { tls, http2 = false, maxHeaderSize, requestTimeout, headersTimeout } = options;
  const http: HttpOptions = {
    ...(maxHeaderSize !== undefined && { maxHeaderSize }),
    ...(requestTimeout !== undefined && { requestTimeout }),
    ...(headersTimeout !== undefined && { headersTimeout }),
    // The gateway checks it, and says so in its own form.
    requireHostHeader: false,
    // Else the connection would end after each request for another upgrade, as it does before Node 24.9. A
    // WebSocket cannot begin while another response is due on its connection.
    shouldUpgradeCallback: (request) =>
      asksForWebSocket(request) && currentResponse(request.socket) === undefined,
    keepAliveTimeout: options.keepAliveTimeout ?? KEEP_ALIVE_TIMEOUT,
    connectionsCheckingInterval: checkingInterval(options),
  };
  if (!http2)
    return tls === undefined
      ? createServer(http, listener)
      : createHttpsServer({ ...http, ...tls }, listener);
  const settings = {
    maxConcurrentStreams: MAX_STREAMS,
    maxHeaderListSize: maxHeaderSize ?? MAX_HEADER_SIZE,
  };
  const server =
    tls === undefined
      ? createHttp2Server({ settings })
      : createSecureServer({ ...http, ...tls, settings, allowHTTP1: true });
  boundInTime(server as Http2Server, options);
  // The compatibility layer gives the listener what it would get of node:http.
  return (server as Http2Server as unknown as Server).on('request', listener);
}

/** Node bounds connections and requests in time over HTTP/1 alone. */
function boundInTime(server: Http2Server, { keepAliveTimeout, requestTimeout }: ServerOptions): void {
  server.on('session', (session) => {
    let streams = 0;
    session.on('stream', (stream) => {
      streams++;
      stream.once('close', () => void streams--);
    });
    // It is silent for that long: without a request, or within the frames of its head.
    session.setTimeout(keepAliveTimeout ?? KEEP_ALIVE_TIMEOUT, () => {
      if (streams === 0) session.destroy();
    });
  });
  const limit = requestTimeout ?? REQUEST_TIMEOUT;
  if (limit === 0) return;
  server.on('stream', (stream, _headers, flags) => {
    if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) return;
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), limit).unref();
    stream.once('end', () => clearTimeout(timer)).once('close', () => clearTimeout(timer));
  });
}

/** The default of Node: milliseconds between two looks for requests that have not arrived in time. */
const CHECKING_INTERVAL = 30_000;

/** Gives an interval in which a short timeout ends at most once more. */
function checkingInterval({ headersTimeout, requestTimeout }: ServerOptions): number {
  const timeouts = [headersTimeout, requestTimeout].filter((timeout) => timeout !== undefined && timeout > 0);
  return Math.min(CHECKING_INTERVAL, ...(timeouts as number[]));
}

const NO_TUNNEL = new Rejection(405, 'method-not-allowed', 'The gateway takes no CONNECT.');

/** Why Node's parser rejected a request, where it was more than malformed. */
const PARSER_ERRORS: Readonly<Record<string, Rejection>> = {
  HPE_HEADER_OVERFLOW: new Rejection(431, 'head-too-large', 'The head of the request is too long.'),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new Rejection(413, 'body-too-large', 'The chunk extensions are too long.'),
  ERR_HTTP_REQUEST_TIMEOUT: new Rejection(408, 'request-timeout', 'The request did not arrive in time.'),
};
const MALFORMED = new Rejection(400, 'bad-request', 'The request is not valid HTTP.');

/** The code of an error of Node's parser: the client has ended its side within a request. */
const ENDED_WITHIN = 'HPE_INVALID_EOF_STATE';

/** Responds on a connection whose bytes Node could not read as a request, and ends it. */
export function rejectConnection(
  error: Error & { code?: string | undefined },
  socket: Duplex,
  accessLog?: AccessLog,
): void {
  // A client that leaves between two requests waits for no response either.
  if (error.code === ENDED_WITHIN && currentResponse(socket)?.req.complete) socket.destroy();
  else end(socket, PARSER_ERRORS[error.code ?? ''] ?? MALFORMED, accessLog);
}

/** Makes a response the last one of its connection. */
function endAfter(response: ServerResponse, socket: Duplex): void {
  if (!response.shouldKeepAlive) return;
  response.shouldKeepAlive = false;
  response.once('finish', () => socket.end());
}

/** @param request what the bytes are, if they are a request */
function end(
  socket: Duplex,
  rejection: Rejection,
  accessLog: AccessLog | undefined,
  request?: IncomingMessage,
): void {
  const current = currentResponse(socket);
  if (current?.req.complete) {
    // The malformed bytes came after a request that is being handled, and its client waits.
    endAfter(current, socket);
    return;
  }
  // A response that is under way on the connection must not be mixed with another one, and a request
  // has one response.
  if (!socket.writable || current?.headersSent || isDiscarding(socket)) {
    socket.destroy();
    return;
  }
  // The bytes belong to the body of a request, which gets one response and one entry of the access log.
  if (current !== undefined && rejectBody(current, rejection)) return;
  const { status, headers, body } = toProblem(rejection);
  const requestId = randomUUID();
  const list = ['connection', 'close', 'x-request-id', requestId, ...headers];
  socket.end(`${renderHead(status, list)}${body}`, () => socket.destroy());
  accessLog?.({
    method: request?.method ?? '',
    path: withoutQuery(request?.url ?? ''),
    status,
    duration: 0,
    bytes: Buffer.byteLength(body),
    requestId,
    // The servers of Node give sockets, which the types of their events leave open.
    address: plainAddress((socket as Socket).remoteAddress ?? ''),
    service: undefined,
    instanceId: undefined,
  });
}
