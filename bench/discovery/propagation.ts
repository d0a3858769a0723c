import type { Redis } from 'ioredis';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { percentile, table } from '../support/measure.ts';
import { Clients, WORKERS } from './clients.ts';
import { Fleet } from './fleet.ts';
import { brokerOf, DEFAULT_INTERVAL, serviceOf } from './moleculer.ts';
import { CHANGING, MAX_WAIT, PROCESSES, serviceName, TURNS } from './registry.ts';

const CLIENTS = 200;
const CHANGES = 100;
/** Changes before: with the first, code is compiled and Redis is told the scripts. */
const WARM_UP = 3;
/** Milliseconds between changes. */
const PAUSE = 40;
/** Milliseconds between heartbeats: none within the time of the changes, and ten times as many as by default. */
const RARE = 30_000;
const OFTEN = 3_000;
/** Of moleculer, whose nodes all know one another: with 200 the machine is busy with that for half a minute. */
const LISTENING_NODES = 100;
/** A change of theirs is found with the next heartbeat of each: changes are spread over a whole interval. */
const NODES = 10;
const SERVICES_OF_A_NODE = 5;

/** Milliseconds from each change to each client. */
type Times = readonly number[];

export async function propagation(redis: Redis, url: string): Promise<void> {
  const limit = await toBareSubscribers(redis, url);
  const rare = await toWatchers(redis, url, RARE);
  const often = await toWatchers(redis, url, OFTEN);
  const { registrations, stops } = await toNodes(redis, url);
  const row = (name: string, times: Times) => [
    name,
    ...[0.5, 0.99, 1].map((share) => percentile(times, share).toFixed(1)),
    (percentile(times, 0.5) / percentile(rare, 0.5)).toFixed(1),
    (percentile(times, 0.99) / percentile(rare, 0.99)).toFixed(1),
  ];
  table(
    `From a change to each of ${CLIENTS} clients, which are in ${WORKERS} processes`,
    ['', 'ms, p50', 'p99', 'longest', 'p50 to ours', 'p99 to ours'],
    [
      row('a bare PUBLISH (the limit)', limit),
      row('**holdfast**, 10,000 instances registered', rare),
      row(`**holdfast**, while each of their ${PROCESSES} processes beats every ${OFTEN / 1_000} s`, often),
      row(
        `moleculer, ${LISTENING_NODES} nodes, a service is created; a heartbeat every ${DEFAULT_INTERVAL} s, its default`,
        registrations,
      ),
      row(`moleculer, ${LISTENING_NODES} nodes, a node stops, which its transporter tells them`, stops),
      ['textbook: nobody is told; the next call reads all anew', '', '', '', '', ''],
    ],
  );
}

async function toBareSubscribers(redis: Redis, url: string): Promise<Times> {
  const clients = await Clients.start({ contender: 'publish', redis: url, clients: CLIENTS });
  const publish = () => redis.publish('changes', 'change');
  await clients.timesOf(WARM_UP, publish, PAUSE);
  const times = await clients.timesOf(CHANGES, publish, PAUSE);
  await clients.end();
  return times;
}

/** An instance is registered, given another weight, deregistered, and so on, in a service of 100 others. */
async function toWatchers(redis: Redis, url: string, interval: number): Promise<Times> {
  const fleet = await Fleet.start({ contender: 'holdfast', redis: url, processes: PROCESSES, interval });
  const clients = await Clients.start({ contender: 'holdfast', redis: url, clients: CLIENTS });
  const discovery = new RedisServiceDiscovery({ redis: url, timeout: MAX_WAIT });
  const instance = { serviceName: serviceName(0), instanceId: CHANGING, host: '10.1.0.1', port: 8000 };
  const change = (number: number) => {
    const metadata = { change: String(number) };
    if (number % TURNS === 0) return discovery.register({ ...instance, metadata });
    if (number % TURNS === 1) return discovery.update(serviceName(0), CHANGING, { metadata, weight: 2 });
    return discovery.deregister(serviceName(0), CHANGING);
  };
  await clients.timesOf(WARM_UP, change, PAUSE);
  await fleet.failures();
  const times = await clients.timesOf(CHANGES, change, PAUSE);
  const failures = await fleet.failures();
  if (failures.length > 0) throw new Error(`the fleet was not kept alive: ${failures[0]}`);
  await discovery.close();
  await clients.end();
  await fleet.end();
  await redis.flushall();
  return times;
}

/**
 * Some nodes create services in turn, then stop. By its defaults a node waits a second for more before it writes its
 * services into Redis, and tells of its end 100 ms after it no longer takes calls.
 */
async function toNodes(redis: Redis, url: string): Promise<{ registrations: Times; stops: Times }> {
  const clients = await Clients.start({ contender: 'moleculer', redis: url, clients: LISTENING_NODES });
  const services = NODES * SERVICES_OF_A_NODE;
  const nodes = Array.from({ length: NODES }, (_, index) => brokerOf(url, `change-${services + index}`));
  await Promise.all(nodes.map((node) => node.start()));
  const create = (number: number) => nodes[number % NODES]!.createService(serviceOf(`change-${number}`));
  const registrations = await clients.timesOf(
    services,
    (number) => void create(number),
    (1_000 * DEFAULT_INTERVAL) / services,
  );
  const stops = await clients.timesOf(NODES, (number) => nodes[number - services]!.stop(), PAUSE);
  await clients.end();
  await redis.flushall();
  return { registrations, stops };
}
