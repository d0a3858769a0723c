import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import superagent from 'superagent';
import { createHttpAgent, StaticServiceDiscovery } from '../../src/index.ts';

// Two instances of a service, each on a free port.
const servers = ['one', 'two'].map((name) =>
  createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ path: request.url, by: name }));
  }).listen(0),
);
const origins = servers.map((server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
const discovery = new StaticServiceDiscovery({ 'user-service': origins });

const agent = createHttpAgent({ discovery, callerName: 'example' });

for (const id of ['u1', 'u2', 'u3']) {
  const { body } = await superagent.get(`http://user-service/users/${id}`).agent(agent);
  console.log(body);
}

await agent.close();
for (const server of servers) server.close();
