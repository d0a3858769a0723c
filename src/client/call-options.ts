import { checkSelector, type Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { nearestName } from '../internal/near-name.ts';
import { shown } from '../internal/shown.ts';
import { type Check, integer, MAX_DELAY, nonEmptyString, number } from '../internal/validate.ts';
import { checkSignal } from '../policies/abort.ts';
import type { ServiceCall } from './service-call.ts';

/** The options of a call, which say how it is made. */
interface CallOptions {
  readonly timeout?: number | undefined;
  readonly retries?: number | undefined;
  readonly hashKey?: string | undefined;
  readonly select?: Selector | undefined;
  readonly signal?: AbortSignal | null | undefined;
  readonly maxResponseSize?: number | undefined;
}

/** Checks of the options. The other parts of a call are checked where they are read. */
const CHECKS: Readonly<Record<keyof CallOptions, Check>> = {
  timeout: number(1, MAX_DELAY),
  retries: integer(0, Infinity),
  hashKey: nonEmptyString,
  select: checkSelector,
  signal: checkSignal,
  maxResponseSize: integer(1, Infinity),
};

/**
 * Whether a call has a part with this name. Every part of every call is checked, and a switch costs
 * less than a table.
 */
function isPart(name: string): boolean {
  switch (name as keyof ServiceCall) {
    case 'service':
    case 'method':
    case 'path':
    case 'query':
    case 'body':
    case 'headers':
    case 'timeout':
    case 'retries':
    case 'idempotencyKey':
    case 'hashKey':
    case 'select':
    case 'signal':
    case 'maxResponseSize':
      return true;
    default:
      return false;
  }
}

const NAMES: readonly (keyof ServiceCall)[] = [
  'service',
  'method',
  'path',
  'query',
  'body',
  'headers',
  'timeout',
  'retries',
  'idempotencyKey',
  'hashKey',
  'select',
  'signal',
  'maxResponseSize',
];

/** Names that other libraries have for a part of a call. */
const ALIASES: Readonly<Record<string, string>> = Object.assign(Object.create(null), {
  params: 'query',
  searchParams: 'query',
  qs: 'query',
  json: 'body',
  data: 'body',
  form: 'body',
  payload: 'body',
  url: 'path',
  uri: 'path',
  retry: 'retries',
  maxAttempts: 'retries',
});

/**
 * Checks the options of a call, and that it has no unknown parts: a misspelt name is an error, not
 * a silent default.
 *
 * @throws InvalidRequestError naming the part
 */
export function checkCall(call: ServiceCall): void {
  if (typeof call !== 'object' || call === null) {
    throw new InvalidRequestError(`a call must be an object such as { service, path }; got ${shown(call)}`);
  }
  for (const name in call) if (!isPart(name)) rejectUnknown(name);
  if (typeof call.service !== 'string' || call.service === '') {
    throw new InvalidRequestError(
      `the service of a call must be a non-empty string; got ${shown(call.service)}`,
    );
  }
  checkOptions(call);
}

/** Checks the options that every kind of request can have. */
export function checkOptions(options: CallOptions): void {
  const { timeout, retries, hashKey, select, signal, maxResponseSize } = options;
  if (timeout !== undefined) check('timeout', timeout);
  if (retries !== undefined) check('retries', retries);
  if (hashKey !== undefined) check('hashKey', hashKey);
  if (select !== undefined) check('select', select);
  if (signal !== undefined) check('signal', signal);
  if (maxResponseSize !== undefined) check('maxResponseSize', maxResponseSize);
}

function check(name: keyof CallOptions, value: unknown): void {
  try {
    CHECKS[name](value, `the ${name} of a call`);
  } catch (cause) {
    throw new InvalidRequestError((cause as Error).message, { cause });
  }
}

function rejectUnknown(name: string): void {
  // Properties that another library has added to all objects are not the caller's.
  if (name in Object.prototype) return;
  const near = ALIASES[name] ?? nearestName(name, NAMES);
  const hint = near === undefined ? `a call has ${NAMES.join(', ')}` : `did you mean '${near}'?`;
  throw new InvalidRequestError(`a call has no ${shown(name)}: ${hint}`);
}

const REQUEST_OPTIONS: readonly string[] = ['timeout', 'retries', 'idempotencyKey', 'hashKey', 'select'];

/** Names that need no further look: our own, and others that were looked at before. */
const seen = new Set<string>(REQUEST_OPTIONS);
const MAX_SEEN = 1_000;

/**
 * Warns, once for each name, of an option of `fetch` whose name is nearly one of ours. Other
 * unknown names are ignored, as the Fetch standard says.
 */
export function warnOfNearMisses(init: object): void {
  for (const name in init) if (!seen.has(name)) warnOfNearMiss(name);
}

function warnOfNearMiss(name: string): void {
  if (seen.size >= MAX_SEEN) return;
  seen.add(name);
  const near = nearestName(name, REQUEST_OPTIONS);
  if (near === undefined) return;
  process.emitWarning(`a request was given '${name}', which is ignored: did you mean '${near}'?`, {
    type: 'HoldfastOptionWarning',
  });
}
