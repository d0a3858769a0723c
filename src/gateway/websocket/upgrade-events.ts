import { type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Rejection, toProblem } from '../problem.ts';
import { asksForWebSocket } from './handshake.ts';
import { endSoon, sendLast } from './raw-response.ts';

type OnWebSocket = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

const NO_UPGRADE = new Rejection(501, 'upgrade-not-supported', 'The gateway upgrades to WebSockets alone.');

/**
 * Has the requests for WebSockets under a prefix handled. Others of a server with this listener alone
 * are handled as if they had not asked for an upgrade, which a server may ignore (RFC 9110, section
 * 7.8): without a listener Node would do so. Those of a server with more listeners are left to them.
 */
export function listenForWebSockets(server: Server, prefix: string, onWebSocket: OnWebSocket): void {
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const isOurs = asksForWebSocket(request) && isUnder(prefix, request.url!);
    if (!isOurs && server.listenerCount('upgrade') > 1) return;
    // A client that asks before it has the response to its last request would get both at once.
    if ((socket as { _httpMessage?: unknown })._httpMessage) socket.destroy();
    else if (isOurs) onWebSocket(request, socket, head);
    // The servers of Node give sockets, which the type of the event leaves open.
    else ignoreUpgrade(server, request, socket as Socket);
  });
}

function isUnder(prefix: string, url: string): boolean {
  return url.startsWith(prefix) && (prefix === '' || /^(?:[/?]|$)/.test(url.slice(prefix.length)));
}

function ignoreUpgrade(server: Server, request: IncomingMessage, socket: Socket): void {
  socket.on('error', () => {});
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  if (encoding !== undefined || length !== '0') {
    // Node has let go of the connection, and would not read the body.
    const { status, headers, body } = toProblem(NO_UPGRADE);
    sendLast(socket, status, headers, body);
    return;
  }
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => {
    socket.end();
    endSoon(socket);
  });
  server.emit('request', request, response);
}
