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
/** Milliseconds for which a breaker remembers calls, and a little more. */
const WINDOW = 11_000;
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

interface IdleClient extends Service {
  readonly fleet: Fleet;
  readonly fault: Fault;
}

/** Clients that know their instances as well, from calls that none of them will remember. */
export async function idleClients(setting: Setting, faults: readonly Fault[]): Promise<IdleClient[]> {
  const clients: IdleClient[] = [];
  for (const fleet of FLEETS) {
    for (const fault of faults) {
      const service = await setting.service(fleet, { latency: LATENCY });
      await service.client.burst(40);
      clients.push({ ...service, fleet, fault });
    }
  }
  await setTimeout(WINDOW);
  return clients;
}

/** The instances have died while the client was idle. */
export async function idleBurst(setting: Setting, { fleet, fault, bad, client }: IdleClient): Promise<Row> {
  await setting.servers.set(bad, { fault });
  await client.burst(40);
  await client.burst(100);
  return partialFailure({
    situation: `${fleet.join(' of ')} ${fault} while the client is idle, 40 at once, then 100 more`,
    client,
    fault,
    bad: bad.length,
    warm: true,
  });
}
