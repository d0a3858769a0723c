import type { RedisConnection } from './redis-connection.ts';

/** Tells what is lost with a key that Redis drops, and the type of the warning. */
const LOSSES = {
  events: { lost: 'events that nobody has handled', type: 'HoldfastEventsWarning' },
  sagas: { lost: 'sagas that have not ended', type: 'HoldfastSagasWarning' },
} as const;

/** Warns if Redis drops keys when its memory is full, which may hold what nobody else has. */
export async function warnOfEviction(connection: RedisConnection, kept: keyof typeof LOSSES): Promise<void> {
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
  const { lost, type } = LOSSES[kept];
  process.emitWarning(
    `Redis at ${connection.address} has the maxmemory-policy '${policy}': when its memory is full, it drops ` +
      `${lost}. Give it 'noeviction'.`,
    { type },
  );
}
