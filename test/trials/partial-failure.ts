import type { Row } from '../support/trial.ts';
import { coldBursts, coldHangs, idleBurst, idleClients, QUICK } from './partial-failure/bursts.ts';
import { quickLoads, slowLoads, warmLoads } from './partial-failure/loads.ts';
import { newcomers, recoveries } from './partial-failure/recoveries.ts';
import { serviceHealth } from './partial-failure/service-health.ts';
import { Setting } from './partial-failure/setting.ts';

export const about =
  'while one instance of a service is well, calls succeed; an instance that was bad gets its share again; a service is down only if no instance is well.';

/** What has little load goes on at the same time. */
export async function run(seed: number): Promise<Row[]> {
  const setting = new Setting(seed);
  try {
    const aside = newcomers(setting);
    const idle = idleClients(setting, QUICK);
    const idleToo = idleClients(setting, ['hang']);
    const rows = await coldBursts(setting);
    for (const client of await idle) rows.push(await idleBurst(setting, client));
    const idleHangs = (await idleToo).map((client) => idleBurst(setting, client));
    return [
      ...rows,
      ...(await Promise.all([slowLoads(setting), coldHangs(setting), Promise.all(idleHangs)])).flat(),
      ...(await quickLoads(setting)),
      ...(await warmLoads(setting)),
      ...(await recoveries(setting)),
      ...(await serviceHealth(setting)),
      ...(await aside),
    ];
  } finally {
    await setting.end();
  }
}
