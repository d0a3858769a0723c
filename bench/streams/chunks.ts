const CHUNK = Buffer.alloc(65_536, 'x');

/** So many bytes, a part after the other. */
export function* chunks(bytes: number): Generator<Uint8Array> {
  for (let left = bytes; left > 0; left -= CHUNK.length) yield CHUNK.subarray(0, left);
}
