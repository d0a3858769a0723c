import { type IncomingMessage, METHODS } from 'node:http';
import { indexOfHeader } from '../../client/header-list.ts';
import { IDENTITY_HEADER } from '../auth/identity-signer.ts';
import { Rejection } from '../problem.ts';
import { toDashes } from './header-name.ts';
import { parseTarget, type RequestTarget } from './request-target.ts';
import { extendVia } from './via.ts';

/** The head of a request, checked. */
export interface RequestHead {
  readonly target: RequestTarget;
  /** The host as the client gave it, with its port. */
  readonly authority: string;
  /** Names in lower case and values in turn: those that a service may get as they came. */
  readonly headers: string[];
  /** Undefined if the body has no length, or there is none. */
  readonly contentLength: number | undefined;
  readonly hasBody: boolean;
  /** Whether the client waits for `100 Continue` before it sends the body. */
  readonly expectsContinue: boolean;
}

/**
 * Tells how a header is treated: `hop` and `own` headers are not forwarded, the latter since the gateway
 * sets them itself or since a client could change with them what the gateway has decided. The
 * others are checked.
 */
type HeaderKind =
  | 'hop'
  | 'own'
  | 'host'
  | 'connection'
  | 'transfer-encoding'
  | 'content-length'
  | 'expect'
  | 'cookie'
  | 'via'
  | 'single';

const KINDS: ReadonlyMap<string, HeaderKind> = new Map([
  ...[
    'keep-alive',
    'proxy-connection',
    'proxy-authenticate',
    'proxy-authorization',
    'te',
    'trailer',
    'upgrade',
    'http2-settings',
  ].map((name) => [name, 'hop'] as const),
  ...[
    'forwarded',
    'x-real-ip',
    'x-client-ip',
    'x-cluster-client-ip',
    'true-client-ip',
    'cf-connecting-ip',
    'x-original-url',
    'x-original-host',
    'x-rewrite-url',
    'x-http-method',
    'x-http-method-override',
    'x-method-override',
    IDENTITY_HEADER,
    'x-request-id',
    'x-request-timeout',
    'x-service-name',
    'traceparent',
    'tracestate',
    'baggage',
  ].map((name) => [name, 'own'] as const),
  ['host', 'host'],
  ['connection', 'connection'],
  ['transfer-encoding', 'transfer-encoding'],
  ['content-length', 'content-length'],
  ['expect', 'expect'],
  ['cookie', 'cookie'],
  ['via', 'via'],
  // Of these, one server would take the first and another the last.
  ['content-type', 'single'],
  ['idempotency-key', 'single'],
]);

/** Proxies tell services in headers of this form what they have found out, such as `X-Forwarded-User`. */
function kindOf(name: string): HeaderKind | undefined {
  return KINDS.get(name) ?? (name.startsWith('x-forwarded-') ? 'own' : undefined);
}

const CONNECTION_OPTIONS: ReadonlySet<string> = new Set([
  'close',
  'keep-alive',
  'upgrade',
  'te',
  'trailer',
  'transfer-encoding',
  'http2-settings',
]);

/** Over HTTP/1 Node's parser takes no others, but over HTTP/2 it takes any. */
const FORWARDED_METHODS: ReadonlySet<string> = new Set(
  METHODS.filter((method) => method !== 'TRACE' && method !== 'CONNECT'),
);

/** A name or an address, and perhaps a port: RFC 9110, section 7.2, without percent escapes. */
const HOST = /^(?:[\w-]+(?:\.[\w-]+)*\.?|\[[\da-f:.]+\])(?::\d{1,5})?$/i;

/**
 * Reads the head of a request in one pass, and makes the checks that Node's parser leaves out.
 *
 * @param viaName the name of the gateway in `Via`
 * @throws Rejection
 */
export function readHead(request: IncomingMessage, viaName: string): RequestHead {
  const { method, httpVersionMajor, rawHeaders } = request;
  checkVersion(request);
  if (!FORWARDED_METHODS.has(method!))
    throw new Rejection(405, 'method-not-allowed', `The gateway takes no ${method}.`);
  const reader = new HeadReader(request.httpVersion, viaName);
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!;
    // HTTP/2 has its pseudo headers here.
    if (name.startsWith(':')) continue;
    reader.add(name.toLowerCase(), rawHeaders[index + 1]!);
  }
  const target = parseTarget(request.url!, method!);
  const head = reader.finish(target, httpVersionMajor === 2 ? authorityOf(request) : undefined);
  if (httpVersionMajor === 2 && !head.hasBody) return { ...head, hasBody: !endsAfterHead(request) };
  return head;
}

function checkVersion(request: IncomingMessage): void {
  const { httpVersion } = request;
  if (httpVersion === '1.1' || httpVersion === '1.0') return;
  // A first line of HTTP/1 can say the same, and Node takes it.
  if (httpVersion === '2.0' && 'stream' in request) return;
  throw httpVersion === '0.9'
    ? badRequest('HTTP/0.9 is not spoken here')
    : new Rejection(505, 'version-not-supported', 'The gateway speaks HTTP/1.0, HTTP/1.1 and HTTP/2.');
}

/** The compatibility layer of node:http2 has these beside the fields of an IncomingMessage. */
type Http2Request = IncomingMessage & {
  readonly authority?: string | undefined;
  readonly stream: { readonly endAfterHeaders: boolean };
};

function authorityOf(request: IncomingMessage): string | undefined {
  return (request as Http2Request).authority;
}

function endsAfterHead(request: IncomingMessage): boolean {
  return (request as Http2Request).stream.endAfterHeaders;
}

/** Takes in the headers of a request one by one. */
class HeadReader {
  readonly headers: string[] = [];
  readonly #version: string;
  readonly #viaName: string;
  #via = '';
  #host: string | undefined = undefined;
  #contentLength: number | undefined = undefined;
  #chunked = false;
  #expectsContinue = false;
  /** The index of the cookies in `headers`. */
  #cookies = -1;

  constructor(version: string, viaName: string) {
    this.#version = version;
    this.#viaName = viaName;
  }

  add(name: string, value: string): void {
    const kind = kindOf(name);
    if (kind === undefined) {
      if (name.includes('_') && kindOf(toDashes(name)) !== undefined)
        throw badRequest(`the header '${name}' may be taken for another one`);
      this.headers.push(name, value);
    } else if (kind !== 'hop' && kind !== 'own') {
      this.#check(kind, name, value);
    }
  }

  #check(kind: Exclude<HeaderKind, 'hop' | 'own'>, name: string, value: string): void {
    switch (kind) {
      case 'host':
        if (this.#host !== undefined) throw badRequest('it has more than one Host');
        this.#host = value;
        break;
      case 'connection':
        checkConnection(value);
        break;
      case 'transfer-encoding':
        this.#checkTransferEncoding(value);
        break;
      case 'content-length':
        this.#addContentLength(value);
        break;
      case 'expect':
        if (value.toLowerCase() !== '100-continue')
          throw new Rejection(
            417,
            'expectation-failed',
            'The gateway knows no expectation but 100-continue.',
          );
        this.#expectsContinue = this.#version !== '1.0';
        break;
      case 'cookie':
        this.#addCookie(value);
        break;
      case 'via':
        if (value !== '') this.#via = this.#via === '' ? value : `${this.#via}, ${value}`;
        break;
      case 'single':
        if (indexOfHeader(this.headers, name) !== -1) throw badRequest(`it has more than one ${name}`);
        this.headers.push(name, value);
        break;
    }
  }

  /** @param authority that of HTTP/2, which takes the place of Host */
  finish(target: RequestTarget, authority: string | undefined): RequestHead {
    const host = this.#host;
    if (host === undefined && authority === undefined && this.#version !== '1.0')
      throw badRequest('it has no Host');
    if (host !== undefined && authority !== undefined && host.toLowerCase() !== authority.toLowerCase())
      throw badRequest('its Host differs from its :authority');
    const given = target.authority ?? authority ?? host ?? '';
    if ((host !== undefined && !HOST.test(host)) || (given !== '' && !HOST.test(given)))
      throw badRequest('its Host is not valid');
    const contentLength = this.#contentLength;
    if (this.#chunked && contentLength !== undefined)
      throw badRequest('it has both Content-Length and Transfer-Encoding');
    this.headers.push('via', extendVia(this.#via, this.#version, this.#viaName));
    return {
      target,
      authority: given,
      headers: this.headers,
      contentLength,
      hasBody: this.#chunked || (contentLength ?? 0) > 0,
      expectsContinue: this.#expectsContinue,
    };
  }

  #checkTransferEncoding(value: string): void {
    if (this.#version !== '1.1') throw badFraming('only HTTP/1.1 has Transfer-Encoding');
    if (this.#chunked || value.toLowerCase() !== 'chunked')
      throw badFraming("it has a Transfer-Encoding other than 'chunked'");
    this.#chunked = true;
  }

  #addContentLength(value: string): void {
    if (!/^\d{1,15}$/.test(value) || this.#contentLength !== undefined)
      throw badRequest('its Content-Length is not valid');
    this.#contentLength = Number(value);
    this.headers.push('content-length', value);
  }

  /** HTTP/2 may split cookies, and a service gets one line: RFC 9113, section 8.2.3. */
  #addCookie(value: string): void {
    if (this.#cookies === -1) {
      this.#cookies = this.headers.push('cookie', value) - 1;
    } else {
      this.headers[this.#cookies] += `; ${value}`;
    }
  }
}

/** Nothing but these can be named: a client must not have the gateway remove other headers. */
function checkConnection(value: string): void {
  for (const option of value.split(',')) {
    const name = option.trim().toLowerCase();
    if (name !== '' && !CONNECTION_OPTIONS.has(name))
      throw badRequest('its Connection names a header that is not of the connection');
  }
}

function badRequest(what: string): Rejection {
  return new Rejection(400, 'bad-request', `The request was rejected: ${what}.`);
}

/** Rejects a request whose end another server may see elsewhere, and its connection with it. */
function badFraming(what: string): Rejection {
  return new Rejection(400, 'bad-request', `The request was rejected: ${what}.`, { connection: 'close' });
}
