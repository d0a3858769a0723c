import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent as HttpAgent } from 'node:http';
import axios from 'axios';
import got from 'got';
import ky from 'ky';
import { Pool, fetch as undiciFetch } from 'undici';
import { ServiceClient, StaticServiceDiscovery } from '../src/index.ts';
import { median, table } from './support/measure.ts';
import { type Contender, callsPerSecond } from './support/turns.ts';

const CONCURRENCY = 64;
const PATH = '/users/u1';

export const contenders: Record<string, Contender> = {
  'undici Pool.dispatch + JSON.parse (the limit)': (origin) => {
    const pool = new Pool(origin);
    return () => dispatch(pool);
  },
  '**holdfast ServiceClient.call**, everything on': (origin) => {
    const discovery = new StaticServiceDiscovery({ 'user-service': [origin] });
    const client = new ServiceClient({ discovery, callerName: 'bench' });
    return () => client.call({ service: 'user-service', path: PATH });
  },
  'undici request + json()': (origin) => {
    const pool = new Pool(origin);
    return async () => (await pool.request({ path: PATH, method: 'GET' })).body.json();
  },
  'undici fetch': (origin) => async () => (await undiciFetch(`${origin}${PATH}`)).json(),
  'ky (on the built-in fetch)': (origin) => () => ky(`${origin}${PATH}`, { retry: 0 }).json(),
  got: (origin) => {
    const client = got.extend({ agent: { http: new HttpAgent({ keepAlive: true }) }, retry: { limit: 0 } });
    return () => client(`${origin}${PATH}`).json();
  },
  axios: (origin) => {
    const client = axios.create({ httpAgent: new HttpAgent({ keepAlive: true }) });
    return async () => (await client.get(`${origin}${PATH}`)).data;
  },
};

function dispatch(pool: Pool): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    pool.dispatch(
      { path: PATH, method: 'GET' },
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

export async function clients(): Promise<void> {
  const server = fork(new URL('./support/server.ts', import.meta.url));
  const [port] = (await once(server, 'message')) as [number];
  const names = Object.keys(contenders);
  const rates = await callsPerSecond({
    module: import.meta.url,
    names,
    argument: `http://127.0.0.1:${port}`,
    concurrency: CONCURRENCY,
  });
  server.disconnect();
  const [dispatches, , requests] = rates as [number[], number[], number[]];
  const ratio = (own: number[], others: number[]) =>
    median(own.map((rate, round) => rate / others[round]!)).toFixed(2);
  table(
    `JSON calls, ${CONCURRENCY} at a time, keep-alive, server in another process`,
    ['', 'calls a second', 'to undici request', 'to dispatch'],
    rates.map((own, index) => [
      names[index]!,
      median(own).toFixed(0),
      ratio(own, requests),
      ratio(own, dispatches),
    ]),
  );
}
