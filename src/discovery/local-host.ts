import { isIPv6 } from 'node:net';

/** Gives the host in the one form that URLs have of it: `0` is `0.0.0.0`, and IPv6 is in brackets. */
function normalize(host: string): string {
  return new URL(`http://${isIPv6(host) ? `[${host}]` : host}`).hostname;
}

const UNSPECIFIED = new Set(['0.0.0.0', '[::]', '[::ffff:0:0]']);

/** Tells whether a valid host is the address on which a server listens on all interfaces. */
export function isUnspecified(host: string): boolean {
  return UNSPECIFIED.has(normalize(host));
}

const LOOPBACK = /^(127\.[\d.]+|\[::1\]|\[::ffff:7f[\da-f]{2}:[\da-f]{1,4}\]|(.+\.)?localhost\.?)$/;

/** Tells whether a valid host is reached from its own machine, pod or container alone. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(normalize(host));
}
