import type { Redis } from 'ioredis';
import { table } from '../support/measure.ts';
import { Part } from '../support/part.ts';
import { Fleet } from './fleet.ts';
import type { Heap, Heaps } from './heap.ts';
import { INSTANCES, PROCESSES } from './registry.ts';

export async function memory(redis: Redis, url: string): Promise<void> {
  const fleet = await Fleet.start({
    contender: 'holdfast',
    redis: url,
    processes: PROCESSES,
    interval: 30_000,
  });
  const own = await heapsOf({ contender: 'holdfast', redis: url });
  await fleet.end();
  await redis.flushall();
  const others = await heapsOf({ contender: 'moleculer', redis: url });
  await redis.flushall();
  const row = (name: string, { one, all }: Heaps) => [
    name,
    (one / 1_024).toFixed(0),
    (all / 1_024 / 1_024).toFixed(1),
    (all / INSTANCES).toFixed(0),
    (all / own.all).toFixed(1),
  ];
  table(
    'Heap of what a client knows',
    ['', 'KiB, a service of 100', 'MiB, 100 services', 'bytes an instance', 'to ours'],
    [
      row('**holdfast**', own),
      row('moleculer, whose nodes know all services', others),
      ['textbook, which keeps nothing', '0', '0', '0', '0'],
    ],
  );
}

async function heapsOf(heap: Heap): Promise<Heaps> {
  const part = await Part.start(new URL('./heap.ts', import.meta.url), heap, ['--expose-gc']);
  const heaps = await part.ask<Heaps>('heaps');
  await part.end();
  return heaps;
}
