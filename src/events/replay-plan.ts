import { nonEmptyString, number, validateOptions } from '../internal/validate.ts';
import type { DomainEvent } from './domain-event.ts';
import type { ReplayOptions } from './event-bus.ts';
import { parsePattern } from './event-pattern.ts';

/** The events that a replay is for. */
export interface ReplayPlan {
  readonly since: number;
  readonly until: number;
  /** The topic; undefined for all. */
  readonly topic: string | undefined;
  readonly aggregateId: string | undefined;
  matches(event: DomainEvent): boolean;
}

/** @throws TypeError or RangeError that names the option that is not allowed */
export function planReplay(options: ReplayOptions): ReplayPlan {
  validateOptions('replay()', options, {
    since: number(0),
    until: number(0),
    type: (type, option) => void parsePattern(type as string, option),
    aggregateId: nonEmptyString,
  });
  const { since = 0, until = Date.now(), type, aggregateId } = options;
  const pattern = type === undefined ? undefined : parsePattern(type, "replay() option 'type'");
  return {
    since,
    until,
    topic: pattern?.topic,
    aggregateId,
    matches: (event) =>
      (pattern?.matches(event.eventType) ?? true) &&
      (aggregateId === undefined || event.aggregateId === aggregateId),
  };
}
