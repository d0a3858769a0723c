import ky from 'ky';
import { createFetch, ServiceClient } from '../../src/index.ts';
import { discovery, stop } from './server.ts';

const client = new ServiceClient({ discovery, callerName: 'example' });

// The mesh retries, within the budget of the service: ky need not.
const users = ky.create({ fetch: createFetch(client), baseUrl: 'http://user-service/', retry: 0 });

for (const id of ['u1', 'u2', 'u3', 'u4', 'u5', 'u6']) console.log(await users.get(`users/${id}`).json());

await client.close();
await stop();
