import { setTimeout } from 'node:timers/promises';
import { median, percentile } from '../../../bench/support/measure.ts';
import type { Fault } from '../../support/faulty-instances.ts';
import { isCircuitOpen, type ObservedClient } from '../../support/observed-client.ts';
import type { Row } from '../../support/trial.ts';
import { percent } from './requirements.ts';
import { LATENCY, type Setting } from './setting.ts';

/** Checks which faults open the breaker of a service, and which do not. */
export async function serviceHealth(setting: Setting): Promise<Row[]> {
  const steady = [lonely(setting), boundedEjections(setting)];
  const rows: Row[] = [];
  for (const size of [1, 2, 3, 10]) rows.push(await mostlyFailing(setting, size));
  rows.push(...(await Promise.all(steady)));
  const faults: readonly Fault[] = ['refused', 'reset', 503, 500];
  const down = [2, 10].flatMap((size) => faults.map((fault) => allDown(setting, size, fault)));
  return [...rows, ...(await Promise.all(down))];
}

/** So many that their median is no chance: one client in six needs longer than it. */
const CLIENTS = 15;
/** More would have this process, not the services, decide how soon. */
const AT_ONCE = 5;

/** Every instance fails 70 % of its calls, as with a broken database behind all of them. */
async function mostlyFailing(setting: Setting, size: number): Promise<Row> {
  const fault = { fault: 500, share: 0.7, latency: 3 };
  const waits: number[] = [];
  while (waits.length < CLIENTS) {
    const services = await Promise.all(
      Array.from({ length: AT_ONCE }, () => setting.service([size, size], fault)),
    );
    const begun = performance.now();
    await Promise.all(services.map(({ client }) => client.steady(100, 1_500)));
    waits.push(...services.map(({ client }) => (client.openings[0] ?? Infinity) - begun));
  }
  const wait = median(waits);
  return {
    situation: `each of ${size} responds 500 to 70 % of the calls, 100 a second, median of ${CLIENTS} clients`,
    measured:
      wait === Infinity ? 'the breaker stays closed for 1.5 s' : `it opens after ${wait.toFixed(0)} ms`,
    required: 'it opens within 500 ms',
    ok: wait <= 500,
  };
}

/** A service with one instance, which fails half of its calls after a while. */
async function lonely(setting: Setting): Promise<Row> {
  const { bad, client } = await setting.service([1, 1], { latency: 3 });
  const load = client.steady(100, 16_000);
  await setTimeout(2_000);
  await setting.servers.set(bad, { fault: 500, share: 0.5, latency: 3 });
  const since = performance.now();
  await load;
  const calls = client.since(since, 0);
  const success = calls.filter(({ error }) => error === undefined).length / calls.length;
  const open = calls.filter(isCircuitOpen).length;
  return {
    situation: 'the only instance responds 500 to half of the calls',
    measured: `${percent(success)} succeed, ${open} fail with ERR_CIRCUIT_OPEN`,
    required: '45 to 55 %, none',
    ok: success >= 0.45 && success <= 0.55 && open === 0,
  };
}

/** Two of three instances do worse than the rules that compare allow, and only one may be ejected by them. */
async function boundedEjections(setting: Setting): Promise<Row> {
  const volume = { minimumInstances: 3, minimumCalls: 20 };
  const { client } = await setting.service(
    [2, 3],
    { fault: 500, share: 0.7, latency: 3 },
    {
      latency: 3,
      strategy: 'random',
      outlierDetection: {
        consecutiveFailures: Infinity,
        successRate: volume,
        failurePercentage: { threshold: 0.5, ...volume },
        interval: 1_000,
        maxEjectionRatio: 0.5,
      },
    },
  );
  const most = mostEjected(client);
  await client.steady(200, 6_000);
  return {
    situation: '2 of 3 fail 70 % of their calls, maxEjectionRatio 0.5',
    measured: `up to ${most()} ejected at once, ${percent(client.failures.length / client.calls.length)} fail`,
    required: '1 ejected at once',
    ok: most() === 1,
  };
}

function mostEjected({ balancer }: ObservedClient): () => number {
  const ejected = new Set<string>();
  let most = 0;
  balancer.on('eject', ({ instance }) => {
    ejected.add(instance.instanceId);
    most = Math.max(most, ejected.size);
  });
  balancer.on('return', ({ instance }) => void ejected.delete(instance.instanceId));
  return () => most;
}

/** No instance is well. */
async function allDown(setting: Setting, size: number, fault: Fault): Promise<Row> {
  const { bad, client } = await setting.service([size, size], { latency: LATENCY });
  const load = client.steady(100, 7_000);
  await setTimeout(1_000);
  const before = client.calls.length;
  await setting.servers.set(bad, { fault });
  // Between two probes: the breaker opens within 0.3 s, and waits for 0.5 s, then for 0.75 s.
  await setTimeout(1_100);
  // All that was under way when the breaker opened has ended.
  const opened = client.openings.length > 0;
  const quiet = performance.now();
  const { probes } = client;
  const reached = await received(setting, bad);
  await load;
  const probed = (await received(setting, bad)) - reached;
  const allowed = client.probes - probes;
  const rejected = client.since(quiet, 0).filter(isCircuitOpen);
  const times = rejected.map(({ begun, ended }) => ended - begun);
  // Not all: the caller of a probe that failed has its attempt, and its backoff, in its time.
  const late = rejected.length === 0 ? Infinity : percentile(times, 0.95);
  const calls = client.calls.length - before;
  return {
    situation: `all of ${size} ${fault}, 100 a second`,
    measured:
      `the breaker ${opened ? 'opens' : 'stays closed'}, p95 of rejections ${late.toFixed(1)} ms, ` +
      `${probed} attempts in ${allowed} probes, ${rejected.length} of ${calls} rejected`,
    required: 'it opens, under 5 ms, an attempt per probe',
    ok: opened && late < 5 && probed <= allowed,
  };
}

async function received({ servers }: Setting, ids: readonly string[]): Promise<number> {
  return (await servers.received(ids)).reduce((sum, count) => sum + count, 0);
}
