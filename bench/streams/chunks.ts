const CHUNK = 65_536;

/** So many bytes, a part after the other. Each has memory of its own, so that who keeps them is found out. */
export function* chunks(bytes: number): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= CHUNK) yield Buffer.alloc(Math.min(CHUNK, left), 'x');
}
