import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import type { FetchRequest } from './fetch-request.ts';
import type { MeshTargets } from './mesh-target.ts';
import { isRetrieval } from './methods.ts';
import { isReplayable } from './relay-request.ts';
import type { ResponseHeaders } from './response.ts';

/** The most redirects of a request. Source: Fetch standard, 'HTTP-redirect fetch'. */
const MAX_REDIRECTS = 20;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Reads where a response redirects to; undefined if it redirects nowhere. */
export function readLocation(status: number, { location }: ResponseHeaders): string | undefined {
  if (!REDIRECTS.has(status) || typeof location !== 'string') return undefined;
  // undici reads headers as Latin-1; the standard decodes a location as UTF-8.
  return Buffer.from(location, 'latin1').toString();
}

/** A redirect to follow. */
export interface Redirect {
  readonly status: number;
  readonly location: string;
  /** The instance that sent the response. */
  readonly instance: ServiceInstance | undefined;
}

/** The rules that say where a redirect may lead. */
export interface RedirectRules {
  readonly service: string;
  readonly targets: MeshTargets;
  readonly redirect: Request['redirect'];
}

/**
 * Builds the request that a redirect asks for. Source: Fetch standard, 'HTTP-redirect fetch'; here
 * a redirect leads only to the same service, since a response does not choose where a request goes.
 *
 * @throws InvalidRequestError if the redirect may not, or cannot, be followed
 */
export function followRedirect(
  sent: FetchRequest,
  { status, location, instance }: Redirect,
  { service, targets, redirect }: RedirectRules,
): FetchRequest {
  const where = `'${service}' redirects to ${shown(location.split(/[?#]/, 1)[0])}`;
  if (redirect === 'error') throw new InvalidRequestError(`${where}, and the request has redirect: 'error'`);
  const url = URL.canParse(location, sent.url.href)
    ? toServiceUrl(new URL(location, sent.url), sent.url, instance)
    : undefined;
  if (url === undefined || targets.serviceOf(url) !== service) {
    throw new InvalidRequestError(`${where}, and is followed only within the service`);
  }
  if (sent.redirects === MAX_REDIRECTS)
    throw new InvalidRequestError(`${where}, after ${MAX_REDIRECTS} redirects`);
  const redirects = sent.redirects + 1;
  const { method } = sent;
  const asPost = method === 'POST' && (status === 301 || status === 302);
  if (asPost || (status === 303 && !isRetrieval(method))) {
    const headers = new Map([...sent.headers].filter(([name]) => !name.startsWith('content-')));
    return { url, method: 'GET', headers, body: undefined, redirects };
  }
  if (sent.body !== undefined && !isReplayable(sent.body)) {
    throw new InvalidRequestError(`${where}, and the body, a stream, cannot be sent again`);
  }
  return { ...sent, url, redirects };
}

/**
 * Gives the URL in terms of the service where an instance calls itself by its own address, as nginx
 * does by default.
 */
function toServiceUrl(url: URL, service: URL, instance: ServiceInstance | undefined): URL {
  if (instance === undefined || url.origin !== new URL(originOf(instance)).origin) return url;
  const { protocol, host } = service;
  return new URL(`${protocol}//${host}${url.pathname}${url.search}${url.hash}`);
}
