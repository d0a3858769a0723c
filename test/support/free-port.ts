import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/**
 * Finds a port of 127.0.0.1 that is free, and free at the given distances from it. It is below the ports that systems
 * give to outgoing connections: while a server is down, one of those could take its port, or a client that tries to
 * connect could be given it and meet itself.
 */
export async function freePort(offsets: number[] = [0]): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 20_000);
    const free = await Promise.all(offsets.map((offset) => isFree(port + offset)));
    if (free.every(Boolean)) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  try {
    await listen(probe, port);
  } catch {
    return false;
  }
  await new Promise((resolve) => probe.close(resolve));
  return true;
}

export async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
}
