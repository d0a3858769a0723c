import { shown } from '../internal/shown.ts';
import { matching } from '../internal/validate.ts';

const TYPE = /^(?=.{1,128}$)[\w-]+(\.[\w-]+)*$/;
const PATTERN = /^(?=.{1,128}$)[\w-]+(\.[\w-]+)*(\.\*)?$/;

/** The form of the name of a type, in words. */
export const EVENT_TYPE_FORM =
  'the name of a type of events, such as order.created: letters, digits, _ and -, in parts with dots between (at most 128)';

/** Checks the name of a type of events. */
export const checkEventType = matching(TYPE, EVENT_TYPE_FORM);

export function isEventType(value: unknown): value is string {
  return typeof value === 'string' && TYPE.test(value);
}

const checkPattern = matching(PATTERN, 'a type of events such as order.created, or all of a topic: order.*');

/** The topic of a type of events or of a pattern: the part before the first dot. */
export function topicOf(type: string): string {
  const dot = type.indexOf('.');
  return dot === -1 ? type : type.slice(0, dot);
}

/** The types that a subscription or a replay is for. */
export interface ParsedPattern {
  readonly pattern: string;
  readonly topic: string;
  matches(eventType: string): boolean;
}

/** @throws TypeError if it is neither a type nor `topic.*` */
export function parsePattern(pattern: string, option: string): ParsedPattern {
  checkPattern(pattern, option);
  const topic = topicOf(pattern);
  if (!pattern.endsWith('.*')) return { pattern, topic, matches: (type) => type === pattern };
  if (pattern !== `${topic}.*`) {
    throw new TypeError(
      `${option} must be a type, or all of a topic such as ${topic}.*; got ${shown(pattern)}`,
    );
  }
  return { pattern, topic, matches: (type) => topicOf(type) === topic };
}

/**
 * Gives the key of a group: subscriptions of one name with different patterns are apart from each
 * other. No name of a group has a slash.
 */
export function groupKey(group: string, { pattern }: ParsedPattern): string {
  return `${group}/${pattern}`;
}
