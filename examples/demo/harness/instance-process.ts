/** One instance, in a process of its own. It ends when the demo lets go of it, or has died itself. */

import { startInstance } from '../service.ts';
import type { FromInstance, ToInstance } from './forked-instance.ts';
import { LEASE, RedisRun, TTL } from './redis-run.ts';

const [service, url, prefix, databaseUrl, gatewayKeys] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string?,
];
const run = new RedisRun(url, prefix, service);

const { discovery, bus } = run;
const starting = startInstance(service, {
  discovery,
  bus,
  databaseUrl,
  gatewayKeys,
  heartbeatInterval: TTL / 3,
  lease: LEASE,
  tell: (news) => send({ news }),
});
process.once('disconnect', () => void end());
// The demo may have died while this process was loading its modules.
if (!process.connected) await end();
const instance = await starting;
process.on('message', async ({ switches }: ToInstance) => {
  // To set none would release what is held.
  if (switches !== undefined) await instance.set(switches);
  send({ received: await instance.received() });
});
send({ instanceId: instance.instanceId });

async function end(): Promise<void> {
  setTimeout(() => process.exit(1), 5_000).unref();
  await (await starting).stop();
  await run.close();
  process.exit();
}

function send(message: FromInstance): void {
  if (process.connected) process.send!(message, undefined, undefined, () => {});
}
