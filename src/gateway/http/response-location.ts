import { originOf, type ServiceInstance } from '../../discovery/service-instance.ts';
import type { PathView } from '../routing/path-pattern.ts';

/** Headers of a response that name a place: RFC 9110, sections 8.7 and 10.2.2. */
const LOCATIONS: ReadonlySet<string> = new Set(['location', 'content-location']);

/** A URL, perhaps without its scheme: that, its host and port, and the rest. */
const ABSOLUTE = /^(?:(https?):)?\/\/([^/?#\\]*)(.*)$/is;

/**
 * Replaces URLs at the instance itself, which a client cannot reach, by the path at the gateway: so nginx
 * does by default (`proxy_redirect`). All others, and relative ones, are what the service means.
 *
 * @param headers names and values in turn
 */
export function hideInstance(headers: string[], instance: ServiceInstance, view: PathView | undefined): void {
  for (let index = 0; index < headers.length; index += 2) {
    if (LOCATIONS.has(headers[index]!))
      headers[index + 1] = toClientView(headers[index + 1]!, instance, view);
  }
}

function toClientView(location: string, instance: ServiceInstance, view: PathView | undefined): string {
  const [, scheme = instance.protocol, authority, rest] = ABSOLUTE.exec(location) ?? [];
  if (authority === undefined || !isAt(instance, `${scheme}://${authority}`)) return location;
  const path = withOneSlash(rest!);
  if (view === undefined || !isUnder(view.service, path)) return path;
  return withOneSlash(view.client + path.slice(view.service.length));
}

function isAt(instance: ServiceInstance, origin: string): boolean {
  return URL.canParse(origin) && new URL(origin).origin === new URL(originOf(instance)).origin;
}

/** Takes away what would, behind a slash, begin the name of another host in the eyes of a browser. */
function withOneSlash(path: string): string {
  return path.replace(/^[/\\\s]*/, '/');
}

function isUnder(beginning: string, path: string): boolean {
  return path.startsWith(beginning) && /^(?:[/?#]|$)/.test(path.slice(beginning.length));
}
