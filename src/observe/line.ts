import type { LogFields, LogLevel } from './logger.ts';

/** How an event is logged. */
export interface Line<Event> {
  /** A function may give undefined for an event that no log needs. */
  readonly level: LogLevel | ((event: Event) => LogLevel | undefined);
  /** The same for each event of the name, so that it can be searched for. */
  readonly message: string;
  readonly fields: (event: Event) => LogFields;
  /**
   * For an event that may come with every call: the first one is logged, and then the number of those
   * that came with the same key, every ten seconds while more come.
   */
  readonly countBy?: ((event: Event) => string) | undefined;
  /**
   * The counted event that is over with this one, where both have the same key: what was counted of it
   * is logged first, so that no line of a trouble comes after that of its end.
   */
  readonly ends?: string | undefined;
}

type EventOf<Events, Name extends keyof Events> = Events[Name] extends readonly [infer Event] ? Event : never;

/** A line for every event of an emitter; undefined for one that no log needs. */
export type Lines<Events> = {
  readonly [Name in keyof Events]: Line<EventOf<Events, Name>> | undefined;
};

const noFields = () => ({});

export function line<Event>(
  level: Line<NoInfer<Event>>['level'],
  message: string,
  fields: (event: NoInfer<Event>) => LogFields = noFields,
): Line<Event> {
  return { level, message, fields };
}

export function counted<Event>(
  level: Line<NoInfer<Event>>['level'],
  message: string,
  fields: (event: NoInfer<Event>) => LogFields = noFields,
  countBy: (event: NoInfer<Event>) => string = () => '',
): Line<Event> {
  return { level, message, fields, countBy };
}

/** Makes the line of an event with which the trouble is over that a counted event tells of. */
export function ending<Event>(ends: string, own: Line<Event>): Line<Event> {
  return { ...own, ends };
}

/** The most characters of a message. */
const MAX_TEXT = 500;
/** The most causes of causes that are looked at. */
const MAX_CAUSES = 10;

/**
 * Describes an error by texts alone: its own fields may hold what no log must show. `cause` is the
 * message of the first cause in its chain.
 */
export function errorFields(error: unknown): LogFields {
  if (error === undefined || error === null) return {};
  try {
    return readError(error);
  } catch {
    return { error: 'an error that cannot be read' };
  }
}

function readError(error: unknown): LogFields {
  const { code } = Object(error) as { code?: unknown };
  const cause = findRoot(error);
  return {
    error: toText(error),
    ...(typeof code === 'string' && { code: clean(code) }),
    ...(cause !== error && { cause: toText(cause) }),
  };
}

function findRoot(error: unknown): unknown {
  let root = error;
  for (let depth = 0; depth < MAX_CAUSES; depth++) {
    const { cause } = Object(root) as { cause?: unknown };
    if (cause === undefined || cause === null) break;
    root = cause;
  }
  return root;
}

/** An AggregateError, as of a connection that failed over several addresses, may have no message. */
function toText(error: unknown): string {
  if (typeof error === 'string') return clean(error);
  const { message, code, name } = Object(error) as Readonly<Record<string, unknown>>;
  const text = [message, code, name].find((one) => typeof one === 'string' && one !== '');
  return clean(typeof text === 'string' ? text : 'not an Error');
}

/** A text of others could end a line, or move the cursor of a terminal. */
function clean(text: string): string {
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
  return short.replace(/\p{Cc}+/gu, ' ');
}
