import type { Row } from '../support/trial.ts';
import { coldBursts, coldHangs, idleBurst, idleClients, QUICK } from './partial-failure/bursts.ts';
import { quickLoads, slowLoads, warmLoads } from './partial-failure/loads.ts';
import { newcomers, recoveries } from './partial-failure/recoveries.ts';
import { serviceHealth } from './partial-failure/service-health.ts';
import { Setting } from './partial-failure/setting.ts';

export const about =
  'while one instance of a service is well, calls succeed; an instance that was bad gets its share again; a service is down only if no instance is well.';

export async function run(seed: number): Promise<Row[]> {
  const setting = new Setting(seed);
  try {
    // It waits for minutes, and has next to no load.
    const [rows, aside] = await Promise.all([inTurn(setting), newcomers(setting)]);
    return [...rows, ...aside];
  } finally {
    await setting.end();
  }
}

async function inTurn(setting: Setting): Promise<Row[]> {
  const idle = idleClients(setting, QUICK);
  const idleToo = idleClients(setting, ['hang']);
  const rows = await coldBursts(setting);
  for (const client of await idle) rows.push(await idleBurst(setting, client));
  const idleHangs = Promise.all((await idleToo).map((client) => idleBurst(setting, client)));
  rows.push(...(await Promise.all([slowLoads(setting), coldHangs(setting), idleHangs])).flat());
  for (const situations of [quickLoads, warmLoads, recoveries, serviceHealth])
    rows.push(...(await situations(setting)));
  return rows;
}
