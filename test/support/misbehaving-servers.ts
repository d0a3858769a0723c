import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { startServer } from './server.ts';

/** Cuts the connection once the request is there: whether it was processed nobody can tell. */
export function reset(request: IncomingMessage): void {
  request.resume().on('end', () => request.socket.destroy());
}

/** Takes the request, and never responds. */
export function never(request: IncomingMessage): void {
  request.resume();
}

/** An origin at which nobody listens. */
export async function deadOrigin(): Promise<{ origin: string }> {
  const server = await startServer(never);
  await server.stop();
  return { origin: server.origin };
}

export interface TcpServer {
  readonly origin: string;
  readonly port: number;
}

/**
 * Starts a server that does with each connection what it is told to. It ends with the test, and its
 * connections too.
 */
export async function startTcpServer(onConnection: (socket: Socket) => void): Promise<TcpServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onConnection(socket);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, port };
}

/** Accepts connections, and sends nothing: no TLS handshake comes about with it. */
export async function startSilent(): Promise<{ origin: string }> {
  const { port } = await startTcpServer(() => {});
  return { origin: `https://127.0.0.1:${port}` };
}

/** Responds to the first bytes of each connection with the same bytes, and closes it. */
export function startRaw(bytes: string | Buffer): Promise<TcpServer> {
  return startTcpServer((socket) => void socket.once('data', () => socket.end(bytes)));
}
