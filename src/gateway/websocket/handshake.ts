import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { GatewayConfig, RouteOptions } from '../options.ts';
import { Rejection } from '../problem.ts';

/** RFC 6455, section 1.3. */
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/** 16 bytes in Base64: RFC 6455, section 4.1. */
const KEY = /^[+/\dA-Za-z]{21}[AQgw]==$/;

const VERSION = '13';

/** Which pages may open WebSockets besides those of the gateway's own host: all, or those listed. */
export type AllowedOrigins = '*' | ReadonlySet<string>;

/** Gives the origins of a route; undefined if it takes no WebSockets. `true` stands for those of CORS. */
export function compileOrigins(
  webSocket: RouteOptions['webSocket'],
  cors: GatewayConfig['cors'],
): AllowedOrigins | undefined {
  if (webSocket === undefined || webSocket === false) return undefined;
  const origins = webSocket === true ? ((cors || undefined)?.origins ?? []) : webSocket.origins;
  return origins === '*' ? '*' : new Set(origins.map((origin) => origin.toLowerCase()));
}

/** Whether a request asks for a WebSocket, and for no other protocol. */
export function asksForWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.upgrade?.trim().toLowerCase() === 'websocket';
}

/**
 * Checks the client's part of the opening handshake (RFC 6455, section 4.2.1).
 *
 * @returns the key
 * @throws Rejection
 */
export function checkHandshake({ headers, httpVersion }: IncomingMessage): string {
  if (httpVersion !== '1.1') throw malformed('its HTTP version is not 1.1');
  // The bytes behind the head would be taken for frames.
  if (headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0')
    throw malformed('it has a body');
  if (headers['sec-websocket-version'] !== VERSION) {
    const detail = `The gateway speaks version ${VERSION} of the WebSocket protocol.`;
    throw new Rejection(426, 'web-socket-version', detail, {
      'sec-websocket-version': VERSION,
      upgrade: 'websocket',
    });
  }
  const key = headers['sec-websocket-key'];
  if (key === undefined || !KEY.test(key)) throw malformed('its Sec-WebSocket-Key is not valid');
  return key;
}

/**
 * Checks that the page that opens the WebSocket may do so. A browser sends its cookies along whatever
 * the page, and always names it; other clients need not (RFC 6455, section 10.2).
 *
 * @throws Rejection 403
 */
export function checkOrigin({ headers }: IncomingMessage, allowed: AllowedOrigins): void {
  const { origin, host } = headers;
  if (origin === undefined || allowed === '*' || allowed.has(origin.toLowerCase())) return;
  if (host !== undefined && URL.canParse(origin) && new URL(origin).host === host.toLowerCase()) return;
  throw new Rejection(403, 'origin-not-allowed', 'Pages of this origin may not open WebSockets here.');
}

/** Gives the `Sec-WebSocket-Accept` that proves that a service has read the key. */
export function acceptFor(key: string): string {
  return createHash('sha1').update(`${key}${GUID}`).digest('base64');
}

function malformed(what: string): Rejection {
  return new Rejection(400, 'bad-handshake', `The request for a WebSocket was rejected: ${what}.`);
}
