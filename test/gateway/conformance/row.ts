/** The result of a request, or of several on one connection. */
export interface Outcome {
  /** The first to respond: the parser of Node, the gateway, or the service. */
  readonly by: 'parser' | 'gateway' | 'service';
  /** The statuses of all responses. */
  readonly statuses: readonly number[];
  /** All that the service receives: see `received`. */
  readonly bytes: string;
  /**
   * Whether the connection takes another request afterwards, has ended, or takes what comes for the
   * rest of a body.
   */
  readonly after: 'goes on' | 'ends' | 'waits';
  /** Whether the body breaks off: the service receives nothing, or these bytes and no last chunk. */
  readonly brokenOff?: true;
}

/**
 * A row of the table: what the request is like, the bytes that are sent, and what becomes of them. The
 * last column is for the plugin, where Fastify or Node respond before it sees the request.
 */
export type Row = readonly [name: string, sent: string, outcome: Outcome, plugin?: Outcome];

/** Node takes it for malformed, which ends the connection. */
export const BY_PARSER = byParser(400);

export function byParser(status: number): Outcome {
  return { by: 'parser', statuses: [status], bytes: '', after: 'ends' };
}

/** The gateway responds by itself, and the service receives nothing. */
export function byGateway(statuses: number | number[], after: Outcome['after'] = 'goes on'): Outcome {
  return { by: 'gateway', statuses: [statuses].flat(), bytes: '', after };
}

export function forwarded(
  bytes: string,
  after: Outcome['after'] = 'goes on',
  statuses: readonly number[] = [200],
): Outcome {
  return { by: 'service', statuses, bytes, after };
}

/** Node takes the body of a POST in chunks for malformed, which may have begun to go on. */
export function brokenOff(status: number): Outcome {
  const bytes = received('POST /a', { body: 'transfer-encoding: chunked\r\n\r\n' });
  return { by: 'parser', statuses: [status], bytes, after: 'ends', brokenOff: true };
}

export const HOST = 'Host: shop.example\r\n';

/** Writes a GET. @param headers each with its line end */
export function get(target: string, headers = ''): string {
  return `GET ${target} HTTP/1.1\r\n${HOST}${headers}\r\n`;
}

/** Writes a POST. @param headers each with its line end */
export function post(headers: string, body: string): string {
  return `POST /a HTTP/1.1\r\n${HOST}${headers}\r\n${body}`;
}

/** Writes a POST whose body is in chunks. @param headers each with its line end */
export function chunked(chunks: string, headers = ''): string {
  return post(`Transfer-Encoding: chunked\r\n${headers}`, chunks);
}

interface ReceivedOptions {
  connection?: string;
  /** The headers of the client that go on, each with its line end. */
  headers?: string;
  /** The host as the client gave it; empty for none. */
  host?: string;
  forwarding?: string;
  /** The version of HTTP by which the gateway got the request. */
  version?: string;
  /** The lines of the trace and of who the caller is, each with its line end. */
  trace?: string;
  /** The framing and the body, from the line of the framing on. */
  body?: string;
  /** Whether the client may still send: nobody knows when that call will end. */
  streamed?: boolean;
}

/** Gives the bytes of a request as the service gets it: these, and nothing else. */
export function received(line: string, options: ReceivedOptions = {}): string {
  const { connection = 'keep-alive', headers = '', host = 'shop.example' } = options;
  const {
    version = '1.1',
    trace = '',
    body = '\r\n',
    streamed = body.startsWith('transfer-encoding'),
  } = options;
  const { forwarding = forwardingHeaders({ host }) } = options;
  const timeout = streamed ? '' : 'x-request-timeout: TIMEOUT\r\n';
  return `${line} HTTP/1.1\r\nhost: INSTANCE\r\nconnection: ${connection}\r\n${headers}via: ${version} GATEWAY\r\n${forwarding}x-request-id: ID\r\n${trace}${timeout}${body}`;
}

/** Writes the headers that tell the service who the client is. */
export function forwardingHeaders({
  host = 'shop.example',
  chain = '127.0.0.1',
  address = '127.0.0.1',
  proto = 'http',
}): string {
  const named = host === '' ? '' : `x-forwarded-host: ${host}\r\n`;
  const quoted = host === '' ? '' : `host="${host}";`;
  return `x-forwarded-for: ${chain}\r\nx-forwarded-proto: ${proto}\r\n${named}forwarded: for=${address};${quoted}proto=${proto}\r\n`;
}

/** Replaces what differs from one request to the next. */
export function mask(bytes: string): string {
  return bytes
    .replace(/^host: 127\.0\.0\.1:\d+\r$/gm, 'host: INSTANCE\r')
    .replace(/ holdfast-[\da-f]{12}\r$/gm, ' GATEWAY\r')
    .replace(/^x-request-id: [\da-f-]{36}\r$/gm, 'x-request-id: ID\r')
    .replace(/^x-request-timeout: \d+\r$/gm, 'x-request-timeout: TIMEOUT\r');
}
