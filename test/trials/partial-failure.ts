import type { Row } from '../support/trial.ts';
import { coldBursts, coldHangs, idleBursts, QUICK } from './partial-failure/bursts.ts';
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
    return [
      ...(await coldBursts(setting)),
      ...(await idleBursts(setting, QUICK)),
      ...(await Promise.all([slowLoads(setting), coldHangs(setting), idleBursts(setting, ['hang'])])).flat(),
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
