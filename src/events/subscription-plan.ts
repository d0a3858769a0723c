import { AsyncResource } from 'node:async_hooks';
import { emitWarning } from '../internal/emitter.ts';
import {
  boolean,
  hasMethods,
  integer,
  isFunction,
  oneOf,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { type Backoff, exponentialBackoff } from '../policies/backoff.ts';
import { Bulkhead } from '../policies/bulkhead.ts';
import { checkName } from './bus-options.ts';
import type { DomainEvent } from './domain-event.ts';
import type { BroadcastOptions, GroupOptions, HandlerContext } from './event-bus.ts';
import { runInEvent } from './event-context.ts';
import { groupKey, type ParsedPattern, parsePattern } from './event-pattern.ts';
import type { Inbox } from './inbox.ts';
import { RunningHandlers } from './running-handlers.ts';

type Handler = (event: DomainEvent, context: HandlerContext<never>) => unknown;

/** A subscription as a user has described it, checked and with all defaults. */
export interface SubscriptionPlan {
  readonly pattern: ParsedPattern;
  /** The group; undefined for a broadcast. */
  readonly group: string | undefined;
  /** The key of the group; undefined for a broadcast. */
  readonly key: string | undefined;
  readonly from: 'start' | 'now';
  readonly maxAttempts: number;
  readonly backoff: Backoff;
  readonly ordered: boolean;
  readonly prefetch: number;
  readonly slots: Bulkhead;
  /** The handlers under way. */
  readonly handlers: RunningHandlers;
  /** Hands an event to the handler of the user. */
  readonly handle: (event: DomainEvent, attempt: number, signal: AbortSignal) => Promise<unknown>;
}

const HANDLING_CHECKS = {
  maxAttempts: integer(1, Infinity),
  backoff: isFunction,
  ordered: boolean,
  concurrency: integer(1),
  prefetch: integer(1, 10_000),
};

const GROUP_CHECKS = {
  ...HANDLING_CHECKS,
  group: checkName,
  from: oneOf('start', 'now'),
  inbox: hasMethods('process'),
  broadcast: oneOf(false),
};

const BROADCAST_CHECKS = { ...HANDLING_CHECKS, broadcast: oneOf(true) };

const OWNER = 'subscribe()';

/** @throws TypeError or RangeError that names the argument or option that is not allowed */
export function planSubscription(
  pattern: string,
  handler: Handler,
  options: GroupOptions<never> | BroadcastOptions,
): SubscriptionPlan {
  const parsed = parsePattern(pattern, 'the pattern of subscribe()');
  isFunction(handler, 'the handler of subscribe()');
  const broadcast = (options as BroadcastOptions | undefined)?.broadcast === true;
  validateOptions(OWNER, options, broadcast ? BROADCAST_CHECKS : GROUP_CHECKS);
  if (!broadcast) requireOption(OWNER, options, 'group');
  const { group, from = 'start', inbox } = options as GroupOptions<never>;
  const { maxAttempts = 5, ordered = true, concurrency = 16, prefetch = 100 } = options;
  const { backoff = exponentialBackoff({ base: 100, max: 30_000 }) } = options;
  const key = broadcast ? undefined : groupKey(group, parsed);
  const handlers = new RunningHandlers();
  const handle =
    key === undefined || inbox === undefined ? handleAlone(handler) : handleOnce(handler, key, inbox);
  return {
    pattern: parsed,
    group: broadcast ? undefined : group,
    key,
    from: broadcast ? 'now' : from,
    maxAttempts,
    backoff,
    ordered,
    prefetch,
    // Lanes wait for a place here, and the prefetch of each partition bounds them.
    slots: new Bulkhead({ maxConcurrent: concurrency, maxQueue: Number.MAX_SAFE_INTEGER }),
    handlers,
    // Else it would run within whatever request has published the event, or has made room for it.
    handle: AsyncResource.bind((...args) => handlers.run(() => handle(...args))) as typeof handle,
  };
}

function handleAlone(handler: Handler): SubscriptionPlan['handle'] {
  return async (event, attempt, signal) =>
    runInEvent(event, () => handler(event, { attempt, signal, tx: undefined as never }));
}

function handleOnce(handler: Handler, key: string, inbox: Inbox<never>): SubscriptionPlan['handle'] {
  return (event, attempt, signal) =>
    runInEvent(event, () =>
      inbox.process(key, event.eventId, (tx) => handler(event, { attempt, signal, tx })),
    );
}

/** Versions that a process has warned of. */
const warned = new Set<string>();
/** The most versions to warn of: their names come from others. */
const MAX_WARNED = 100;

/** Warns, once for each type and version, that events wait for a process that knows them. */
export function warnOfHeld({ eventType, version }: DomainEvent): void {
  const name = `${eventType} ${version}`;
  if (warned.has(name) || warned.size === MAX_WARNED) return;
  warned.add(name);
  emitWarning(
    new Error(`events of type '${eventType}' have version ${version}, which this process does not know`),
    'They wait, and the later events of their aggregates with them, for a process that knows it.',
  );
}
