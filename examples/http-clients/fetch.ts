import { createFetch, ServiceClient } from '../../src/index.ts';
import { discovery, stop } from './server.ts';

const client = new ServiceClient({ discovery, callerName: 'example' });
const fetch = createFetch(client);

for (const id of ['u1', 'u2', 'u3', 'u4', 'u5', 'u6']) {
  const response = await fetch(`http://user-service/users/${id}`, { signal: AbortSignal.timeout(2_000) });
  console.log(response.status, await response.json());
}

// A POST is sent again only with a key by which the service knows it.
const order = { method: 'POST', body: JSON.stringify({ item: 'pear' }), idempotencyKey: 'order-1' };
console.log(await (await fetch('http://user-service/orders', order)).json());

await client.close();
await stop();
