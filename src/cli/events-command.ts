import { EventAdmin } from '../redis/event-admin.ts';
import { CommandError } from './command-error.ts';
import { formatTrace, toJsonTrace } from './event-trace-view.ts';
import { DEAD_VIEW, GROUPS_VIEW, LAG_VIEW, PENDING_VIEW } from './event-views.ts';
import type { RedisEventsCommand } from './events-arguments.ts';
import type { Output } from './output.ts';
import { Report } from './report.ts';
import { describePlace, withRedis } from './with-redis.ts';

/**
 * Shows or mends the events in Redis.
 *
 * @throws CommandError if there is nothing of what was named; if Redis is away, takes too long, or
 * replies with an error; or for a URL that cannot be used.
 */
export async function runEventsCommand(command: RedisEventsCommand, output: Output): Promise<void> {
  await withRedis(command, async (connection) => {
    const admin = await EventAdmin.open(connection, command.keyPrefix);
    await perform(command, admin, new Report(output, command.json, describePlace(command, connection)));
  });
}

async function perform(command: RedisEventsCommand, admin: EventAdmin, report: Report): Promise<void> {
  switch (command.action) {
    case 'lag':
      return report.list(LAG_VIEW, await admin.lag(command.group), inGroup(command.group));
    case 'pending':
      return report.list(PENDING_VIEW, admin.pending(command.group), inGroup(command.group));
    case 'dead':
      return report.list(DEAD_VIEW, admin.deadLetters(command.group), inGroup(command.group));
    case 'groups':
      return report.list(GROUPS_VIEW, await admin.groups());
    case 'show':
      return showEvent(command.eventId, admin, report);
    case 'redrive':
      return redriveEvent(command, admin, report);
    case 'redrive-all':
      return tellRedriven(command.group, await admin.redrive(command.group), report);
    case 'remove-group':
      return removeGroup(command.group, admin, report);
  }
}

/** Names the group that a list is bounded to, for a list that is empty. */
function inGroup(group: string | undefined): string {
  return group === undefined ? '' : ` of the group '${group}'`;
}

async function showEvent(eventId: string, admin: EventAdmin, report: Report): Promise<void> {
  const trace = await admin.trace(eventId);
  if (trace === undefined) throw new CommandError(`there is no event with this id ${report.place}`);
  report.tell(formatTrace(trace), toJsonTrace(trace));
}

async function redriveEvent(
  { eventId, group }: { eventId: string; group: string | undefined },
  admin: EventAdmin,
  report: Report,
): Promise<void> {
  const chosen = group ?? (await findGroup(eventId, admin));
  const count = await admin.redrive(chosen, eventId);
  if (count === 0) throw new CommandError(`the group '${chosen}' has no dead letter of this event`);
  tellRedriven(chosen, count, report);
}

/** Gives the only group that has a dead letter of the event. */
async function findGroup(eventId: string, admin: EventAdmin): Promise<string> {
  const groups = new Set<string>();
  for await (const { event, group } of admin.deadLetters()) if (event.eventId === eventId) groups.add(group);
  const [group, ...others] = groups;
  if (group === undefined) throw new CommandError('no group has a dead letter of this event');
  if (others.length === 0) return group;
  throw new CommandError(
    `the groups ${[...groups].sort().join(', ')} have a dead letter of this event: say with --group which one`,
  );
}

function tellRedriven(group: string, redriven: number, report: Report): void {
  const events = redriven === 1 ? '1 event' : `${redriven || 'no'} events`;
  report.tell([`${events} redriven to the group '${group}'`], { group, redriven });
}

async function removeGroup(group: string, admin: EventAdmin, report: Report): Promise<void> {
  if (!(await admin.removeGroup(group)))
    throw new CommandError(`there is no group '${group}' ${report.place}`);
  report.tell([`the group '${group}' is removed`], { group, removed: true });
}
