import axios from 'axios';
import { axiosAdapter, ServiceClient } from '../../src/index.ts';
import { discovery, stop } from './server.ts';

const client = new ServiceClient({ discovery, callerName: 'example' });
const users = axios.create({ baseURL: 'http://user-service', adapter: axiosAdapter(client), timeout: 2_000 });

for (const id of ['u1', 'u2', 'u3', 'u4', 'u5', 'u6']) {
  const { status, data } = await users.get(`/users/${id}`, { params: { fields: 'name' } });
  console.log(status, data);
}

// An error is one of axios's, and what happened is its cause.
client.policies('user-service').circuitBreaker?.isolate();
const error = await users.get('/users/u7').catch((error) => error);
console.log(axios.isAxiosError(error), error.code, error.cause.name);

await client.close();
await stop();
