import { once } from 'node:events';
import { createServer, get, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { createHttpAgent, StaticServiceDiscovery } from '../../src/index.ts';

// Two instances of a service, each on a free port.
const servers = ['one', 'two'].map((name) =>
  createServer((request, response) => response.end(JSON.stringify({ path: request.url, by: name }))).listen(
    0,
  ),
);
const origins = servers.map((server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
const discovery = new StaticServiceDiscovery({ 'user-service': origins });

const agent = createHttpAgent({ discovery, callerName: 'example' });

for (const id of ['u1', 'u2', 'u3']) {
  const [response] = await once(get(`http://user-service/users/${id}`, { agent }), 'response');
  console.log(await json(response as IncomingMessage));
}

await agent.close();
for (const server of servers) server.close();
