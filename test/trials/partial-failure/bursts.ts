import { setTimeout } from 'node:timers/promises';
import type { Fault } from '../../support/faulty-instances.ts';
import type { Face } from '../../support/observed-client.ts';
import type { Row } from '../../support/trial.ts';
import { partialFailure } from './requirements.ts';
import { type Fleet, LATENCY, type Service, type Setting } from './setting.ts';

export const FLEETS: readonly Fleet[] = [
  [2, 10],
  [2, 5],
  [2, 3],
  [3, 5],
  [3, 4],
  [9, 10],
];
export const QUICK: readonly Fault[] = ['refused', 'reset', 503, 500];
const OTHER_FACES: readonly Face[] = ['request', 'fetch', 'dispatcher', 'axios', 'agent'];
const SAMPLE: readonly Fleet[] = [
  [2, 3],
  [9, 10],
];

/** One after the other, since each takes a moment, and would not be alone otherwise. */
export async function coldBursts(setting: Setting): Promise<Row[]> {
  const rows: Row[] = [];
  for (const fleet of FLEETS) {
    for (const fault of QUICK) rows.push(await coldBurst(setting, fleet, fault, 'call'));
    rows.push(await coldBurst(setting, fleet, 'refused', 'POST'));
  }
  for (const face of OTHER_FACES) {
    for (const fleet of SAMPLE) {
      for (const fault of ['refused', 'reset', 503] as const)
        rows.push(await coldBurst(setting, fleet, fault, face));
    }
  }
  return rows;
}

/** All at once, since most of their time they wait. */
export function coldHangs(setting: Setting): Promise<Row[]> {
  const calls = FLEETS.map((fleet) => coldBurst(setting, fleet, 'hang', 'call'));
  const others = OTHER_FACES.flatMap((face) =>
    SAMPLE.map((fleet) => coldBurst(setting, fleet, 'hang', face)),
  );
  return Promise.all([...calls, ...others]);
}

async function coldBurst(setting: Setting, fleet: Fleet, fault: Fault, face: Face): Promise<Row> {
  const { bad, client } = await setting.service(fleet, { fault }, { face });
  await client.burst(100);
  await client.burst(100);
  return partialFailure({
    situation: `${fleet.join(' of ')} ${fault}, new client, 100 at once, then 100 more (${face})`,
    client,
    fault,
    bad: bad.length,
    repeatable: face !== 'agent' && face !== 'POST',
  });
}

/** The instances die while a client that knows them is idle. */
export async function idleBursts(setting: Setting, faults: readonly Fault[]): Promise<Row[]> {
  const clients: { fleet: Fleet; fault: Fault; service: Service }[] = [];
  for (const fleet of FLEETS) {
    for (const fault of faults) {
      const service = await setting.service(fleet, { latency: LATENCY });
      await service.client.burst(40);
      clients.push({ fleet, fault, service });
    }
  }
  await setTimeout(1_000);
  const rows: Row[] = [];
  const test = async ({ fleet, fault, service }: (typeof clients)[number]) => {
    const { bad, client } = service;
    await setting.servers.set(bad, { fault });
    await client.burst(40);
    await client.burst(100);
    rows.push(
      partialFailure({
        situation: `${fleet.join(' of ')} ${fault} while the client is idle, 40 at once, then 100 more`,
        client,
        fault,
        bad: bad.length,
        warm: true,
      }),
    );
  };
  if (faults.includes('hang')) await Promise.all(clients.map(test));
  else for (const each of clients) await test(each);
  return rows;
}
