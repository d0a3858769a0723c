import { createServer, type ServerResponse } from 'node:http';

/**
 * A server in a process of its own. It tells its parent its port, then of each request that it receives. It responds
 * at once, or holds its responses while its parent says so; told to, it closes the connections that are idle.
 */
const held = new Set<ServerResponse>();
let holding = false;

const server = createServer((request, response) => {
  request.resume().once('end', () => {
    if (holding) held.add(response);
    else response.end('ok');
    process.send?.('received');
  });
});
server.keepAliveTimeout = 60_000;

server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') process.send?.({ port: address.port });
});

process.on('message', (order) => {
  if (order === 'close idle connections') {
    server.closeIdleConnections();
    return;
  }
  holding = order === 'hold';
  if (holding) process.send?.('holding');
  else for (const response of held) response.end('ok');
});
process.on('disconnect', () => process.exit());
