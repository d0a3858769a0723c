import { isIPv4, isIPv6 } from 'node:net';

/**
 * Gives the network that an address is counted by: an IPv4 address alone, also where it is written as
 * IPv6, and an IPv6 address by its /64, since a client has all addresses of one. An address that cannot
 * be read counts as 'unknown', so that nobody gets a limit of their own by sending nonsense.
 */
export function toCountedAddress(address: string | undefined): string {
  if (address === undefined) return 'unknown';
  if (isIPv4(address)) return address;
  if (!isIPv6(address)) return 'unknown';
  const groups = parseGroups(address);
  if (isMappedIPv4(groups)) return toIPv4(groups[6]!, groups[7]!);
  return `${groups
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')}::/64`;
}

/** Parses a valid IPv6 address to its eight groups. */
function parseGroups(address: string): number[] {
  const [withoutZone] = address.split('%', 1) as [string];
  const [head, tail] = withoutZone.split('::') as [string, string | undefined];
  const first = parseList(head);
  if (tail === undefined) return first;
  const last = parseList(tail);
  return [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last];
}

function parseList(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return Number.parseInt(group, 16);
    const [a, b, c, d] = group.split('.').map(Number) as [number, number, number, number];
    return [a * 256 + b, c * 256 + d];
  });
}

function isMappedIPv4(groups: readonly number[]): boolean {
  return groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
}

function toIPv4(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join('.');
}
