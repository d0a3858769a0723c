import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
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
  const chain = readChain(headers['x-forwarded-for']);
  const given = firstMatch(headers['x-forwarded-host'], HOST) ?? authority;
  const scheme = firstMatch(headers['x-forwarded-proto'], PROTO) ?? proto;
  const address = chain.findLast((one) => !proxies.has(one)) ?? chain[0] ?? peer;
  return { address, headers: write(address, [...chain, peer].join(', '), given, scheme) };
}

function write(client: string, forwardedFor: string, host: string, proto: string): string[] {
  const node = client.includes(':') ? `"[${client}]"` : client;
  const lines = ['x-forwarded-for', forwardedFor, 'x-forwarded-proto', proto];
  // A request of HTTP/1.0 need not have a Host.
  if (host === '') return [...lines, 'forwarded', `for=${node};proto=${proto}`];
  return [...lines, 'x-forwarded-host', host, 'forwarded', `for=${node};host="${host}";proto=${proto}`];
}

/** Reads the addresses of a chain, from the last one up to the first that is no address. */
function readChain(value: string | string[] | undefined): string[] {
  const all = String(value ?? '')
    .split(',')
    .map((address) => plainAddress(withoutPort(address.trim())));
  const broken = all.findLastIndex((address) => isIP(address) === 0);
  return all.slice(broken + 1);
}

const WITH_PORT = /^(?:\[([^\]]+)\]|(\d+(?:\.\d+){3}))(?::\d{1,5})?$/;

/** Some proxies write the port too, and then brackets around an address of IPv6. */
function withoutPort(address: string): string {
  const [, v6, v4] = WITH_PORT.exec(address) ?? [];
  return v6 ?? v4 ?? address;
}

function firstMatch(value: string | string[] | undefined, form: RegExp): string | undefined {
  return typeof value === 'string' && form.test(value) ? value : undefined;
}
