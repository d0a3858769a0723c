const OFFSET_BASIS = 0x811c9dc5;
const PRIME = 0x01000193;

/**
 * Gives the partition of an aggregate: FNV-1a, 32 bits, over the UTF-8 bytes of its id, modulo the
 * number of partitions. Other languages can compute the same. Source: Fowler, Noll and Vo, RFC 9923.
 */
export function partitionOf(aggregateId: string, partitions: number): number {
  let hash = OFFSET_BASIS;
  for (let index = 0; index < aggregateId.length; index++) {
    const unit = aggregateId.charCodeAt(index);
    if (unit > 0x7f) return hashOf(Buffer.from(aggregateId)) % partitions;
    hash = Math.imul(hash ^ unit, PRIME);
  }
  return (hash >>> 0) % partitions;
}

function hashOf(bytes: Uint8Array): number {
  let hash = OFFSET_BASIS;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, PRIME);
  return hash >>> 0;
}
