import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent as HttpAgent } from 'node:http';
import axios from 'axios';
import got from 'got';
import ky from 'ky';
import { Pool, fetch as undiciFetch } from 'undici';
import { InMemoryServiceDiscovery, ServiceClient } from '../src/index.ts';
import { type Contender, median, table } from './support/measure.ts';

const CONCURRENCY = 64;
const ROUNDS = 5;
const ROUND = 1_000;

export async function clients(): Promise<void> {
  const server = fork(new URL('./support/server.ts', import.meta.url));
  const [port] = (await once(server, 'message')) as [number];
  const url = `http://127.0.0.1:${port}/users/u1`;
  const pool = new Pool(`http://127.0.0.1:${port}`);
  const agent = new HttpAgent({ keepAlive: true });
  const discovery = new InMemoryServiceDiscovery();
  await discovery.register({ serviceName: 'user-service', host: '127.0.0.1', port });
  const client = new ServiceClient({ discovery, callerName: 'bench' });
  const viaAxios = axios.create({ httpAgent: agent });
  const viaGot = got.extend({ agent: { http: agent }, retry: { limit: 0 } });

  const contenders: Contender[] = [
    ['undici Pool.dispatch + JSON.parse (the limit)', () => dispatch(pool)],
    [
      '**holdfast ServiceClient.call**, everything on',
      () => client.call({ service: 'user-service', path: '/users/u1' }),
    ],
    [
      'undici request + json()',
      async () => (await pool.request({ path: '/users/u1', method: 'GET' })).body.json(),
    ],
    ['undici fetch', async () => (await undiciFetch(url)).json()],
    ['ky (on the built-in fetch)', () => ky(url, { retry: 0 }).json()],
    ['got', () => viaGot(url).json()],
    ['axios', async () => (await viaAxios.get(url)).data],
  ];
  const rates = new Map<string, number[]>(contenders.map(([name]) => [name, []]));
  for (let round = -1; round < ROUNDS; round++) {
    for (const [name, call] of contenders) {
      const rate = await callsPerSecond(call);
      if (round >= 0) rates.get(name)!.push(rate);
    }
  }

  const [limit, , request] = contenders.map(([name]) => median(rates.get(name)!)) as [number, number, number];
  table(
    `JSON calls, ${CONCURRENCY} at a time, keep-alive, server in another process`,
    ['', 'calls a second', 'to undici request', 'to dispatch'],
    contenders.map(([name]) => {
      const rate = median(rates.get(name)!);
      return [name, rate.toFixed(0), (rate / request).toFixed(2), (rate / limit).toFixed(2)];
    }),
  );
  await client.close();
  await discovery.close();
  await pool.close();
  agent.destroy();
  server.disconnect();
}

async function callsPerSecond(call: () => unknown): Promise<number> {
  let done = 0;
  const startedAt = performance.now();
  const worker = async () => {
    while (performance.now() < startedAt + ROUND) {
      await call();
      done++;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return (done / (performance.now() - startedAt)) * 1000;
}

function dispatch(pool: Pool): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    pool.dispatch(
      { path: '/users/u1', method: 'GET' },
      {
        onRequestStart() {},
        onResponseStart() {},
        onResponseData: (_controller, chunk) => void chunks.push(chunk),
        onResponseEnd: () => resolve(JSON.parse(Buffer.concat(chunks).toString())),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}
