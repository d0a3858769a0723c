import type { Socket } from 'node:net';
import { expect, vi } from 'vitest';

export const CHUNK = Buffer.alloc(65_536, 'a');
/** More bytes than the buffers on the way take. */
export const MANY = 64 * 1_048_576;

/** Writes as long as the socket takes more, and gives how much it has taken. */
export function flood(socket: Socket): () => number {
  let sent = 0;
  const write = () => {
    while (sent < MANY) {
      sent += CHUNK.length;
      if (!socket.write(CHUNK)) return;
    }
  };
  socket.on('drain', write);
  write();
  return () => sent;
}

/** Resolves with a number once it has stayed the same. */
export async function settled(read: () => number): Promise<number> {
  let before = -1;
  await vi.waitFor(
    () => {
      const now = read();
      const same = now === before;
      before = now;
      expect(same).toBe(true);
    },
    { interval: 200, timeout: 10_000 },
  );
  return before;
}
