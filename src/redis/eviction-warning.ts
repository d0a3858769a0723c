import type { RedisConnection } from './redis-connection.ts';

/** Warns if Redis drops keys when its memory is full: these may hold events that nobody has handled. */
export async function warnOfEviction(connection: RedisConnection): Promise<void> {
  let info: string;
  try {
    info = await connection.run((client) => client.info('memory'));
  } catch {
    // Redis may deny the command, which costs the warning only.
    return;
  }
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1];
  const limited = /^maxmemory:[1-9]/m.test(info);
  if (!limited || policy === undefined || !policy.startsWith('allkeys')) return;
  process.emitWarning(
    `Redis at ${connection.address} has the maxmemory-policy '${policy}': when its memory is full, it drops events ` +
      "that nobody has handled. Give it 'noeviction'.",
    { type: 'HoldfastEventsWarning' },
  );
}
