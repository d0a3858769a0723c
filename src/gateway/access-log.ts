import type { IncomingMessage } from 'node:http';
import type { ClientResponse } from './http/client-response.ts';

/** A request, once its response is over. */
export interface AccessLogEntry {
  /** Empty, as the path is, for bytes that got a response, though they are no request. */
  readonly method: string;
  /** As it was sent, without the query, which may be secret. */
  readonly path: string;
  /** 499, as with nginx, if the client left before there was a response; 101 for a WebSocket. */
  readonly status: number;
  /** Milliseconds from the head of the request to the end of the response, or of the WebSocket; 0 without a head. */
  readonly duration: number;
  /** Bytes of the body that were sent to the client; of a WebSocket all bytes. */
  readonly bytes: number;
  readonly requestId: string;
  /** The address of the client, as far as `trustedProxies` lets it be believed. */
  readonly address: string;
  /** Undefined if no route was found. */
  readonly service: string | undefined;
  /** The instance that has responded, if one has. */
  readonly instanceId: string | undefined;
}

/** Takes the entries of an access log. Errors that it throws become process warnings. */
export type AccessLog = (entry: AccessLogEntry) => void;

/** The status of a request whose client has left before there was a response. */
export const CLIENT_CLOSED_REQUEST = 499;

export function withoutQuery(url: string): string {
  const query = url.indexOf('?');
  return query === -1 ? url : url.slice(0, query);
}

/** The parts of an entry that are known once the response is over. */
export type LoggedResponse = Pick<
  AccessLogEntry,
  'bytes' | 'requestId' | 'address' | 'service' | 'instanceId'
>;

/** Has a request logged when its response is over. */
export function logWhenOver(
  accessLog: AccessLog,
  { method, url }: IncomingMessage,
  response: ClientResponse,
  describe: () => LoggedResponse,
): void {
  const startedAt = performance.now();
  response.on('close', () => {
    const { headersSent, statusCode } = response;
    accessLog({
      method: method!,
      path: withoutQuery(url!),
      status: headersSent ? statusCode : CLIENT_CLOSED_REQUEST,
      duration: performance.now() - startedAt,
      ...describe(),
    });
  });
}
