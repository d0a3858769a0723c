import { setTimeout as pause } from 'node:timers/promises';
import { expect } from 'vitest';
import { prepareInstance, type RollingInstance } from '../rolling-instances.ts';
import type { LoadTally } from './clients.ts';
import type { RunningPart } from './parts.ts';

/** The source of requests while instances restart. */
export interface Load {
  begin(): unknown;
  end(): Promise<LoadTally>;
}

export interface Restarts {
  registry: { redis: string; keyPrefix: string };
  gateway: RunningPart;
  load: Load;
  /** Instances, each of which is restarted once. */
  size: number;
  reloads: number;
}

/**
 * Restarts instances in turn and reloads the gateway meanwhile: no request fails, and each order is taken once.
 * Gives the figures.
 */
export async function loseNoRequest({ registry, gateway, load, size, reloads }: Restarts): Promise<string> {
  let instances = 0;
  const prepare = () =>
    prepareInstance({
      ...registry,
      serviceName: 'shop',
      instanceId: `instance-${++instances}`,
      drainDelay: 200,
    });
  const running = await Promise.all(Array.from({ length: size }, prepare));
  await Promise.all(running.map((instance) => instance.begin()));
  await load.begin();
  const orders: string[] = [];
  const leave = async (instance: RollingInstance) => void orders.push(...(await instance.terminate()).orders);

  const restarting = restartInTurn(running, prepare, leave);
  let reloaded = 0;
  let restarted = false;
  void restarting.then(() => {
    restarted = true;
  });
  for (; reloaded < reloads || !restarted; reloaded++) {
    await gateway.part.ask('reload');
    await pause(50);
  }
  const next = await restarting;
  const { sent, ordered, failures } = await load.end();
  await Promise.all(next.map(leave));

  expect(failures).toEqual([]);
  expect(ordered.length).toBeGreaterThan(0);
  expect(orders.toSorted()).toEqual(ordered.toSorted());
  return `0 of ${sent} failed, ${ordered.length} orders taken once, ${size} restarts, ${reloaded} reloads`;
}

async function restartInTurn(
  running: readonly RollingInstance[],
  prepare: () => Promise<RollingInstance>,
  leave: (instance: RollingInstance) => Promise<void>,
): Promise<RollingInstance[]> {
  const restarted: RollingInstance[] = [];
  let next = prepare();
  for (const [index, instance] of running.entries()) {
    const begun = await next;
    await begun.begin();
    restarted.push(begun);
    await leave(instance);
    if (index < running.length - 1) next = prepare();
  }
  return restarted;
}
