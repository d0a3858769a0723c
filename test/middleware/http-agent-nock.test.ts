import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import got from 'got';
import nock from 'nock';
import { expect, it, onTestFinished } from 'vitest';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { createHttpAgent } from '../../src/middleware/http-agent.ts';

const url = 'http://user-service/users/u1';

it.each(['http://10.0.0.1:8001', 'https://users.example'])(
  'nock stands in for the instances at %s of a service that is called through an agent',
  async (origin) => {
    const discovery = new StaticServiceDiscovery({ 'user-service': [origin] });
    const client = new ServiceClient({ discovery });
    const agent = createHttpAgent(client);
    onTestFinished(async () => {
      agent.destroy();
      await client.close();
      nock.cleanAll();
    });
    nock(origin).get('/users/u1').times(3).reply(200, { from: 'nock' });
    for (let index = 0; index < 2; index++) {
      const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
      expect(JSON.parse(await text(response))).toEqual({ from: 'nock' });
    }
    expect(await got(url, { agent: { http: agent, https: agent.https } }).json()).toEqual({ from: 'nock' });

    nock(origin).get('/users/u1').reply(503);
    await expect(got(url, { agent: { http: agent }, retry: { limit: 0 } })).rejects.toThrow('503');
    expect(nock.isDone()).toBe(true);
  },
);
