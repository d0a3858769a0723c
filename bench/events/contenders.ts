import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { RedisEventBus } from '../../src/redis/index.ts';
import { createEvent, createSample, type Events, type Sample } from './sample.ts';

/** The handler of an event, with the number of it. */
export type Handler = (number: number) => Promise<void>;

/** Events over Redis, one way or another. */
export interface Messaging {
  /** Resolves when Redis has the event. */
  publish(number: number): Promise<unknown>;
  /** Publishes many events in the way that is the fastest. */
  publishMany(numbers: readonly number[]): Promise<unknown>;
  /** Handles the events, those too that were published before, until the function that it gives is called. */
  consume(handler: Handler): Promise<() => Promise<unknown>>;
  close(): Promise<unknown>;
}

/** Each contender takes the URL of an empty Redis. */
export const contenders = { limit, holdfast, bullmq, textbook } satisfies Record<
  string,
  (redis: string) => Promise<Messaging>
>;

async function holdfast(redis: string): Promise<Messaging> {
  const bus = new RedisEventBus<Events>({ redis, source: 'benchmark' });
  return {
    publish: (number) => bus.publish(createSample(number)),
    publishMany: (numbers) => bus.publish(numbers.map(createSample)),
    consume: async (handler) => {
      const handle = ({ data }: { data: Sample }) => handler(data.number);
      const subscription = await bus.subscribe('order.created', handle, { group: 'benchmark' });
      return () => subscription.close();
    },
    close: () => bus.close(),
  };
}

/**
 * One stream, read and acknowledged a hundred events at a time: no leases, no order over retries, no
 * attempts, no dead letters. Commands are pipelined, as ioredis advises for throughput.
 */
async function limit(url: string): Promise<Messaging> {
  const redis = new Redis(url, { enableAutoPipelining: true });
  await redis.xgroup('CREATE', 'events', 'benchmark', '0', 'MKSTREAM');
  const publish = (number: number) => redis.xadd('events', '*', 'event', JSON.stringify(createEvent(number)));
  return {
    publish,
    publishMany: (numbers) => Promise.all(numbers.map(publish)),
    consume: async (handler) => {
      const reader = new Redis(url);
      const reading = readStream(reader, handler);
      return async () => {
        reader.disconnect();
        await reading;
      };
    },
    close: () => redis.quit(),
  };
}

async function readStream(redis: Redis, handler: Handler): Promise<void> {
  const group = ['GROUP', 'benchmark', 'consumer', 'COUNT', 100, 'BLOCK', 1_000] as const;
  for (;;) {
    const reply = await redis.xreadgroup(...group, 'STREAMS', 'events', '>').catch(() => 'closed' as const);
    if (reply === 'closed') return;
    const [[, entries]] = (reply ?? [['', []]]) as [[string, [string, string[]][]]];
    const ids: string[] = [];
    for (const [id, fields] of entries) {
      await handler((JSON.parse(fields[1]!) as ReturnType<typeof createEvent>).data.number);
      ids.push(id);
    }
    // The next read is sent right behind it.
    if (ids.length > 0) redis.xack('events', 'benchmark', ...ids).catch(() => {});
  }
}

/** Jobs that are removed when they are done; of many jobs at once, as its guide on concurrency advises. */
async function bullmq(redis: string): Promise<Messaging> {
  const { hostname: host, port, pathname } = new URL(redis);
  const connection = { host, port: Number(port), db: Number(pathname.slice(1)) };
  const defaultJobOptions = { removeOnComplete: true, removeOnFail: 1_000, attempts: 5 };
  const queue = new Queue('orders', { connection, defaultJobOptions });
  await queue.waitUntilReady();
  return {
    publish: (number) => queue.add('order.created', createEvent(number)),
    publishMany: (numbers) =>
      queue.addBulk(numbers.map((number) => ({ name: 'order.created', data: createEvent(number) }))),
    consume: async (handler) => {
      const worker = new Worker('orders', ({ data }) => handler(data.data.number), {
        connection: { ...connection, maxRetriesPerRequest: null },
        concurrency: 100,
      });
      await worker.waitUntilReady();
      return () => worker.close();
    },
    close: () => queue.close(),
  };
}

/** Loses events that are published while nobody listens, and writes a hash that nobody reads. */
async function textbook(url: string): Promise<Messaging> {
  const redis = new Redis(url);
  const channel = `order.created${new URL(url).pathname}`;
  const publish = async (number: number) => {
    const event = createEvent(number);
    const json = JSON.stringify(event);
    await redis.hset(`events:${event.aggregateId}`, event.eventId, json);
    await redis.publish(channel, json);
  };
  return {
    publish,
    publishMany: (numbers) => Promise.all(numbers.map(publish)),
    consume: async (handler) => {
      const subscriber = new Redis(url);
      subscriber.on('message', (_channel, json: string) => void handler(JSON.parse(json).data.number));
      await subscriber.subscribe(channel);
      return async () => subscriber.disconnect();
    },
    close: () => redis.quit(),
  };
}
