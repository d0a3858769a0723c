import { setTimeout } from 'node:timers/promises';
import type { StrategyName } from '../../../src/index.ts';
import type { Fault } from '../../support/faulty-instances.ts';
import type { Face } from '../../support/observed-client.ts';
import type { Row } from '../../support/trial.ts';
import { FLEETS, QUICK } from './bursts.ts';
import { partialFailure } from './requirements.ts';
import { type Fleet, LATENCY, type Setting } from './setting.ts';

const STRATEGIES: readonly StrategyName[] = [
  'peak-ewma',
  'round-robin',
  'random',
  'power-of-two',
  'least-connections',
  'weighted-round-robin',
  'consistent-hash',
];

export async function slowLoads(setting: Setting): Promise<Row[]> {
  const sample: readonly Fleet[] = [
    [2, 3],
    [9, 10],
  ];
  const loads = [
    ...FLEETS.flatMap((fleet) => QUICK.map((fault) => coldLoad(setting, fleet, fault, 20, 35))),
    ...FLEETS.map((fleet) => coldLoad(setting, fleet, 'hang', 20, 25)),
    ...sample.flatMap((fleet) => QUICK.map((fault) => coldLoad(setting, fleet, fault, 20, 15, 'POST'))),
  ];
  return Promise.all(loads);
}

export async function quickLoads(setting: Setting): Promise<Row[]> {
  const sample: readonly Fleet[] = [
    [2, 10],
    [2, 3],
    [9, 10],
  ];
  return Promise.all(
    sample.flatMap((fleet) => QUICK.map((fault) => coldLoad(setting, fleet, fault, 100, 10))),
  );
}

async function coldLoad(
  setting: Setting,
  fleet: Fleet,
  fault: Fault,
  perSecond: number,
  duration: number,
  face: Face = 'call',
): Promise<Row> {
  const { bad, client } = await setting.service(fleet, { fault }, { face });
  await client.steady(perSecond, 1000 * duration);
  return partialFailure({
    situation: `${fleet.join(' of ')} ${fault}, new client, ${perSecond} a second for ${duration} s (${face})`,
    client,
    fault,
    bad: bad.length,
    repeatable: face === 'call',
  });
}

/** Instances die under the load of a client that knows them. */
export async function warmLoads(setting: Setting): Promise<Row[]> {
  const fleets: readonly Fleet[] = [
    [2, 3],
    [3, 5],
  ];
  return Promise.all(
    fleets.flatMap((fleet) => [
      ...STRATEGIES.map((strategy) => warmLoad(setting, fleet, 'refused', strategy)),
      ...(['reset', 503, 500] as const).map((fault) => warmLoad(setting, fleet, fault, 'peak-ewma')),
    ]),
  );
}

async function warmLoad(setting: Setting, fleet: Fleet, fault: Fault, strategy: StrategyName): Promise<Row> {
  const { bad, client } = await setting.service(fleet, { latency: LATENCY }, { strategy });
  const load = client.steady(50, 8_000);
  await setTimeout(2_000);
  await setting.servers.set(bad, { fault });
  await load;
  const what = fault === 'refused' ? 'killed' : `${fault}`;
  return partialFailure({
    situation: `${fleet.join(' of ')} ${what} under the load of a warm client (${strategy})`,
    client,
    fault,
    bad: bad.length,
    warm: true,
  });
}
