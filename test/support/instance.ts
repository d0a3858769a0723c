import { createServer } from 'node:http';

/**
 * One instance of a service in a process of its own, so that it can be killed. It tells its parent its port,
 * then of each request that it receives; it responds to `/hold` when the parent says so.
 */
const held = new Set<() => void>();
let holding = true;

const server = createServer((request, response) => {
  const answer = () => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ pid: process.pid }));
  };
  if (request.url === '/hold' && holding) held.add(answer);
  else answer();
  process.send?.('received');
});

server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') process.send?.({ port: address.port });
});

process.on('message', () => {
  holding = false;
  for (const answer of held) answer();
});
process.on('disconnect', () => process.exit());
