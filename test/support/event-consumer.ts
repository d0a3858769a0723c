/** A process that handles events of orders: see startEventConsumer in event-consumers.ts. */
import { constantBackoff } from '../../src/index.ts';
import { RedisEventBus } from '../../src/redis/index.ts';
import type { ConsumerOptions } from './event-consumers.ts';

const { redis, keyPrefix, lease, maxAttempts, behave } = JSON.parse(process.argv[2]!) as ConsumerOptions;

const tell = (message: object) => process.send?.(message);

const bus = new RedisEventBus<{ 'order.created': { n: number } }>({
  redis,
  keyPrefix,
  lease,
  source: 'consumer',
});
bus.on('lose', ({ partition }) => tell({ lost: partition }));
let owned = 0;
bus.on('acquire', () => tell({ owned: ++owned }));

await bus.subscribe(
  'order.created',
  async ({ aggregateId, data: { n } }) => {
    tell({ begun: n });
    if (behave === 'hang') await new Promise(() => {});
    if (behave === 'die' && aggregateId === 'poison') process.kill(process.pid, 'SIGKILL');
    if (behave === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3 * lease);
    tell({ handled: n });
  },
  { group: 'g', maxAttempts, backoff: constantBackoff(1) },
);
tell({ ready: true });
process.on('disconnect', () => process.exit());
