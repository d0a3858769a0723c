import { setTimeout } from 'node:timers/promises';
import { InMemoryServiceDiscovery } from '../../../src/index.ts';
import { type EndedCall, type ObservedClient, service } from '../../support/observed-client.ts';
import type { Row } from '../../support/trial.ts';
import { percent, seconds } from './requirements.ts';
import type { Setting } from './setting.ts';

/** Milliseconds that a well instance needs here. */
const LATENCY = 3;
/** The longest wait of the breaker between two probes, in milliseconds. */
const LONGEST_WAIT = 5_500;

export function recoveries(setting: Setting): Promise<Row[]> {
  return Promise.all([
    slowOnce(setting, 2),
    slowOnce(setting, 2),
    slowOnce(setting, 5),
    slowOnce(setting, 5),
    wellAgain(setting, 2, 300),
    wellAgain(setting, 5, 100),
    ...[outage(setting, 2), outage(setting, 3)],
  ]).then((rows) => rows.flat());
}

/** The response of one instance is slow, once. */
async function slowOnce(setting: Setting, size: number): Promise<Row> {
  const { well, client } = await setting.service([0, size], {}, { latency: LATENCY });
  const load = client.steady(100, 20_000);
  await setTimeout(1_000);
  const [id] = well as [string];
  await setting.servers.slow(id, 500);
  await load;
  const slow = client.calls.find(({ instanceId, begun, ended }) => instanceId === id && ended - begun > 450);
  if (slow === undefined) throw new Error('no response was slow');
  return shareOf(
    `one response of 500 ms, then 3 ms again, ${size} instances`,
    client,
    id,
    size,
    slow.ended,
    3,
  );
}

/** One instance is out of order for 6 s. */
async function wellAgain(setting: Setting, size: number, perSecond: number): Promise<Row> {
  const { well, client } = await setting.service([0, size], {}, { latency: LATENCY });
  const load = client.steady(perSecond, 28_500);
  await setTimeout(1_000);
  const [id] = well as [string];
  await setting.servers.set([id], { fault: 503 });
  await setTimeout(6_000);
  await setting.servers.set([id], { latency: LATENCY });
  const mended = performance.now();
  await load;
  const situation = `one of ${size} responds 503 for 6 s and is well again, ${perSecond} a second`;
  return shareOf(situation, client, id, size, mended, 6);
}

/** All instances are out of order for 15 s. */
async function outage(setting: Setting, size: number): Promise<Row[]> {
  const { well, client } = await setting.service([0, size], {}, { latency: LATENCY });
  const load = client.steady(200, 37_500);
  await setTimeout(1_000);
  await setting.servers.set(well, { fault: 503 });
  await setTimeout(15_000);
  await setting.servers.set(well, { latency: LATENCY });
  const mended = performance.now();
  await load;

  const situation = `all of ${size} respond 503 for 15 s and are well again, 200 a second`;
  const first = client.since(mended, 0).find(({ error }) => error === undefined);
  const wait = first === undefined ? Infinity : first.ended - mended;
  const after = client.calls.filter(({ begun }) => first !== undefined && begun > first.ended);
  const success = after.filter(({ error }) => error === undefined).length / after.length || 0;
  return [
    {
      situation,
      measured: `first success after ${seconds(wait)}, then ${percent(success)} succeed`,
      required: `within ${seconds(LONGEST_WAIT)}, then 99 %`,
      ok: wait <= LONGEST_WAIT && success >= 0.99,
    },
    ...well.map((id, index) => shareOf(`${situation}: instance ${index + 1}`, client, id, size, mended, 6)),
  ];
}

/** The share of an instance in the calls, of what would be fair, some seconds after it was well again. */
function shareOf(
  situation: string,
  client: ObservedClient,
  id: string,
  size: number,
  moment: number,
  from: number,
): Row {
  const share = (calls: readonly EndedCall[]) =>
    (size * calls.filter(({ instanceId }) => instanceId === id).length) / calls.length;
  const soon = share(client.since(moment, 1000 * from, 1000 * (from + 4)));
  const long = share(client.since(moment, 1000 * from, 1000 * (from + 15)));
  return {
    situation,
    measured: `${percent(soon)} of its share for 4 s from ${from} s on, ${percent(long)} for 15 s`,
    required: 'at least 60 %, 80 %',
    ok: soon >= 0.6 && long >= 0.8,
  };
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
