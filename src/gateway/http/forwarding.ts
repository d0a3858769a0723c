import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { type ForwardedElement, parseForwarded } from './forwarded.ts';
import { type Networks, plainAddress } from './networks.ts';

/** The other end of a connection. */
export interface Peer {
  readonly address: string;
  /** Whether it is a proxy whose forwarding headers are believed. */
  readonly trusted: boolean;
}

export function peerOf({ socket }: IncomingMessage, proxies: Networks): Peer {
  const address = plainAddress(socket.remoteAddress ?? '');
  return { address, trusted: proxies.has(address) };
}

/** Where a request comes from, as far as it is believed. */
export interface RequestSource {
  /** The address of the client: that of the peer, or the one that a trusted proxy tells. */
  readonly address: string;
  /** The header lines that tell the service, names and values in turn. */
  readonly headers: readonly string[];
}

const PROTO = /^https?$/;
const HOST = /^[\w.:[\]-]{1,255}$/;

/**
 * Tells where a request comes from, and builds `Forwarded` (RFC 7239) and `X-Forwarded-*` anew. What
 * came in under these names counts only if the peer is a trusted proxy.
 *
 * @param authority the Host of the request
 */
export function sourceOf(
  { socket, headers }: IncomingMessage,
  authority: string,
  { address: peer, trusted }: Peer,
  proxies: Networks,
): RequestSource {
  const proto = 'encrypted' in socket ? 'https' : 'http';
  if (!trusted) return { address: peer, headers: write(peer, peer, authority, proto) };
  const elements = readElements(headers);
  const chain = readChain(elements);
  const client = chain.findLastIndex((one) => !proxies.has(one));
  // The chain may be shorter than the list, so its addresses are counted from the end.
  const index = Math.min(-1, Math.max(0, client) - chain.length);
  const address = chain.at(index) ?? peer;
  const told = elements.at(index);
  const host = matching(told?.host, HOST) ?? authority;
  const scheme = matching(told?.proto, PROTO) ?? proto;
  return { address, headers: write(address, [...chain, peer].join(', '), host, scheme) };
}

/**
 * Reads what proxies tell, the nearest one last. `Forwarded` counts where there is no `X-Forwarded-*`: many
 * proxies write the latter, and let a `Forwarded` of their client through.
 */
function readElements(headers: IncomingHttpHeaders): ForwardedElement[] {
  const read = (name: string) => headers[`x-forwarded-${name}`]?.toString();
  const [nodes, host, proto] = [read('for'), read('host'), read('proto')];
  if ((nodes ?? host ?? proto) === undefined) return parseForwarded(headers.forwarded ?? '');
  return (nodes ?? '').split(',').map((node) => ({ for: node, host, proto }));
}

function write(client: string, forwardedFor: string, host: string, proto: string): string[] {
  const node = client.includes(':') ? `"[${client}]"` : client;
  const lines = ['x-forwarded-for', forwardedFor, 'x-forwarded-proto', proto];
  // A request of HTTP/1.0 need not have a Host.
  if (host === '') return [...lines, 'forwarded', `for=${node};proto=${proto}`];
  return [...lines, 'x-forwarded-host', host, 'forwarded', `for=${node};host="${host}";proto=${proto}`];
}

/** Reads the addresses of a chain, from the last one up to the first that is no address. */
function readChain(elements: readonly ForwardedElement[]): string[] {
  const all = elements.map((element) => plainAddress(withoutPort(element.for?.trim() ?? '')));
  const broken = all.findLastIndex((address) => isIP(address) === 0);
  return all.slice(broken + 1);
}

const WITH_PORT = /^(?:\[([^\]]+)\]|(\d+(?:\.\d+){3}))(?::\d{1,5})?$/;

/** Some proxies write the port too, and then brackets around an address of IPv6. */
function withoutPort(address: string): string {
  const [, v6, v4] = WITH_PORT.exec(address) ?? [];
  return v6 ?? v4 ?? address;
}

function matching(value: string | undefined, form: RegExp): string | undefined {
  return value !== undefined && form.test(value) ? value : undefined;
}
