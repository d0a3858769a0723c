import { EventEmitter } from 'node:events';
import { inject } from 'vitest';
import { Shop } from '../../examples/demo/harness/shop.ts';
import { openStage, type Stage } from '../../examples/demo/harness/stage.ts';
import type { Instance } from '../../examples/demo/service.ts';
import { SERVICES } from '../../examples/demo/services.ts';
import { onFileFinished } from '../support/file-end.ts';

/** The shop of the demo, with one instance of each service. */
export interface TestShop {
  readonly stage: Stage;
  readonly shop: Shop;
  readonly running: Readonly<Record<string, Instance>>;
  /** Emits the kind of each news of the instances. */
  readonly heard: EventEmitter;
}

/** Opens a shop with three customers and a thousand lamps, which ends with the test file. */
export async function openShop(): Promise<TestShop> {
  const stage = await openStage({ redis: undefined, postgres: inject('postgresUrl') });
  const shop = new Shop(stage.visitor, () => {});
  onFileFinished(() => stage.close());
  const heard = new EventEmitter();
  const start = async (service: string) =>
    [service, await stage.start(service, ({ kind }) => heard.emit(kind))] as const;
  const running = Object.fromEntries(await Promise.all(Object.keys(SERVICES).map(start)));
  await Promise.all([
    shop.deliver('lamp', 1_000),
    ...['ada', 'grace', 'edsger'].map((user) => shop.register(user)),
  ]);
  return { stage, shop, running, heard };
}
