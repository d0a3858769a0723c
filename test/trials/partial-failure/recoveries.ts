import { setTimeout } from 'node:timers/promises';
import { InMemoryServiceDiscovery } from '../../../src/index.ts';
import { type ObservedClient, service } from '../../support/observed-client.ts';
import type { Row } from '../../support/trial.ts';
import { percent, seconds } from './requirements.ts';
import type { Setting } from './setting.ts';

/** Milliseconds that a well instance needs here. */
const LATENCY = 3;
/** The longest wait of the breaker between two probes, in milliseconds. */
const LONGEST_WAIT = 5_500;
/**
 * The clients of a situation, each with instances of its own. A strategy that goes by latency gives
 * two equal instances unequal shares for seconds after a peak that strikes one of them by chance:
 * the mean of some clients tells chance from a rule.
 */
const CLIENTS = 3;
/** Calls of each client a second. */
const RATE = 70;

export function recoveries(setting: Setting): Promise<Row[]> {
  return Promise.all([
    slowOnce(setting, 2),
    slowOnce(setting, 5),
    wellAgain(setting, 2),
    wellAgain(setting, 5),
    outage(setting, 2),
    outage(setting, 3),
  ]).then((rows) => rows.flat());
}

/** The calls of a client on instances that were bad until some moment. */
interface Recovery {
  readonly client: ObservedClient;
  readonly instances: readonly string[];
  readonly wellSince: number;
}

/**
 * Has clients call services of this size for this duration, in milliseconds, and disturbs the instances of
 * each after a second.
 */
function recover(
  setting: Setting,
  size: number,
  duration: number,
  disturb: (instances: readonly string[]) => Promise<void>,
): Promise<Recovery[]> {
  const withClient = async (): Promise<Recovery> => {
    const { well, client } = await setting.service([0, size], {}, { latency: LATENCY });
    const load = client.steady(RATE, duration);
    await setTimeout(1_000);
    await disturb(well);
    const wellSince = performance.now();
    await load;
    return { client, instances: well, wellSince };
  };
  return Promise.all(Array.from({ length: CLIENTS }, withClient));
}

/** Has instances respond with 503 for a time. */
async function breakFor(setting: Setting, instances: readonly string[], time: number): Promise<void> {
  await setting.servers.set(instances, { fault: 503 });
  await setTimeout(time);
  await setting.servers.set(instances, { latency: LATENCY });
}

/** The response of one instance is slow, once. */
async function slowOnce(setting: Setting, size: number): Promise<Row> {
  const disturbed = await recover(setting, size, 20_000, ([id]) => setting.servers.slow(id!, 500));
  const recoveries = disturbed.map(({ client, instances }) => {
    const slow = client.calls.find(
      ({ instanceId, begun, ended }) => instanceId === instances[0] && ended - begun > 450,
    );
    if (slow === undefined) throw new Error('no response was slow');
    return { client, instances, wellSince: slow.ended };
  });
  return shareOf(`one response of 500 ms, then 3 ms again, ${size} instances`, recoveries, 0, 3);
}

/** One instance is out of order for 6 s. */
async function wellAgain(setting: Setting, size: number): Promise<Row> {
  const recoveries = await recover(setting, size, 28_500, ([id]) => breakFor(setting, [id!], 6_000));
  return shareOf(`one of ${size} responds 503 for 6 s and is well again`, recoveries, 0, 6);
}

/** All instances are out of order for 15 s. */
async function outage(setting: Setting, size: number): Promise<Row[]> {
  const recoveries = await recover(setting, size, 37_500, (all) => breakFor(setting, all, 15_000));
  const situation = `all of ${size} respond 503 for 15 s and are well again`;
  const waits = recoveries.map(timeToSuccess);
  const wait = Math.max(...waits);
  const successes = recoveries.map((recovery, index) => successRate(recovery, waits[index]!));
  const success = Math.min(...successes);
  return [
    {
      situation,
      measured: `first success after ${seconds(wait)}, then ${percent(success)} succeed`,
      required: `within ${seconds(LONGEST_WAIT)}, then 99 %`,
      ok: wait <= LONGEST_WAIT && success >= 0.99,
    },
    ...Array.from({ length: size }, (_, index) =>
      shareOf(`${situation}: instance ${index + 1}`, recoveries, index, 6),
    ),
  ];
}

/** Milliseconds from the moment at which the instances were well again to the first success. */
function timeToSuccess({ client, wellSince }: Recovery): number {
  const first = client.since(wellSince, 0).find(({ error }) => error === undefined);
  return first === undefined ? Infinity : first.ended - wellSince;
}

/** The part of the calls after the first success that succeeded. */
function successRate({ client, wellSince }: Recovery, wait: number): number {
  const after = client.calls.filter(({ begun }) => begun > wellSince + wait);
  return after.filter(({ error }) => error === undefined).length / after.length || 0;
}

/**
 * The share of an instance in the calls, of what would be fair, some seconds after it was well
 * again: the mean of the clients.
 */
function shareOf(situation: string, recoveries: readonly Recovery[], index: number, from: number): Row {
  const share = (duration: number) =>
    recoveries.reduce((sum, recovery) => sum + shareIn(recovery, index, from, duration), 0) / CLIENTS;
  const soon = share(4);
  const long = share(15);
  return {
    situation: `${situation}, ${CLIENTS} clients, ${RATE} a second each`,
    measured: `${percent(soon)} of its share for 4 s from ${from} s on, ${percent(long)} for 15 s`,
    required: 'at least 60 %, 80 %',
    ok: soon >= 0.6 && long >= 0.8,
  };
}

function shareIn({ client, instances, wellSince }: Recovery, index: number, from: number, duration: number) {
  const calls = client.since(wellSince, 1000 * from, 1000 * (from + duration));
  const own = calls.filter(({ instanceId }) => instanceId === instances[index]);
  return (instances.length * own.length) / calls.length;
}

/** The only instance dies; long after that another one registers. */
export function newcomers(setting: Setting): Promise<Row[]> {
  return Promise.all(
    [45, 130].flatMap((after) => [newcomer(setting, after, false), newcomer(setting, after, true)]),
  );
}

async function newcomer(setting: Setting, after: number, expires: boolean): Promise<Row> {
  const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
  const [old, fresh] = (await setting.servers.add(2)) as [string, string];
  const register = (id: string) => {
    const [host, port] = id.split(':') as [string, string];
    return discovery.register({ serviceName: service, instanceId: id, host, port: Number(port) });
  };
  await register(old);
  const client = setting.client({ instances: discovery });
  const load = client.steady(10, 1000 * (after + 4));
  await setTimeout(1_000);
  await setting.servers.set([old], { fault: 'refused' });
  const died = performance.now();
  if (expires) await setTimeout(1_000).then(() => discovery.deregister(service, old));
  await setTimeout(1000 * after - (performance.now() - died));
  await register(fresh);
  const registered = performance.now();
  await load;
  const first = client.calls.find(({ ended, error }) => ended > registered && error === undefined);
  const wait = first === undefined ? Infinity : first.ended - registered;
  return {
    situation: `another instance registers ${after} s after the only one died${expires ? ' and expired' : ''}`,
    measured: first === undefined ? 'no success in 3 s' : `first success after ${seconds(wait)}`,
    required: 'within 1 s',
    ok: wait <= 1_000,
  };
}
