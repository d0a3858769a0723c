import { checkSelector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { nearestName } from '../internal/near-name.ts';
import { shown } from '../internal/shown.ts';
import { type Check, integer, MAX_DELAY, number, text } from '../internal/validate.ts';
import { checkSignal } from '../policies/abort.ts';
import type { RelayRequest } from './relay-request.ts';
import type { ServiceCall } from './service-call.ts';

/** The parts of a call that say how it is made, each by what checks it. Other entries can be given some of them too. */
const OPTIONS = {
  timeout: number(1, MAX_DELAY),
  retries: integer(0, Infinity),
  hashKey: text,
  select: checkSelector,
  signal: checkSignal,
  maxResponseSize: integer(1, Infinity),
} satisfies Partial<Record<keyof ServiceCall, Check>>;

/** The parts that are checked where they are read. */
const READ = ['method', 'path', 'query', 'body', 'headers', 'idempotencyKey'] as const;

const CHECKS: Readonly<Record<string, Check | null | undefined>> = Object.assign(Object.create(null), {
  service: text,
  ...Object.fromEntries(READ.map((name) => [name, null])),
  ...OPTIONS,
});

const NAMES = Object.keys(CHECKS);

/** What others call a part of a call. */
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
 * Checks a call for what it has, and for what a call has not: a misspelt name is an error and no silent default. It
 * costs a look-up for each part, which is less than to remember which shapes of calls have been seen.
 *
 * @throws InvalidRequestError naming the part
 */
export function checkCall(call: ServiceCall): void {
  if (typeof call !== 'object' || call === null) {
    throw new InvalidRequestError(`a call must be an object such as { service, path }; got ${shown(call)}`);
  }
  for (const name in call) {
    const check = CHECKS[name];
    if (check === null) continue;
    if (check === undefined) refuseUnknown(name);
    else checkPart(call[name as keyof ServiceCall], name, check);
  }
}

/** Checks the same parts of a request that comes another way, whose other parts are not ours. */
export function checkOptions({ timeout, retries, hashKey, select, signal }: Partial<RelayRequest>): void {
  checkPart(timeout, 'timeout', OPTIONS.timeout);
  checkPart(retries, 'retries', OPTIONS.retries);
  checkPart(hashKey, 'hashKey', OPTIONS.hashKey);
  checkPart(select, 'select', OPTIONS.select);
  checkPart(signal, 'signal', OPTIONS.signal);
}

function checkPart(value: unknown, name: string, check: Check): void {
  if (value === undefined) return;
  try {
    check(value, `the ${name} of a call`);
  } catch (cause) {
    throw new InvalidRequestError((cause as Error).message, { cause });
  }
}

function refuseUnknown(name: string): void {
  // What some other library has added to all objects is not the caller's.
  if (name in Object.prototype) return;
  const near = ALIASES[name] ?? nearestName(name, NAMES);
  const hint = near === undefined ? `a call has ${NAMES.join(', ')}` : `did you mean '${near}'?`;
  throw new InvalidRequestError(`a call has no '${name.slice(0, 100)}': ${hint}`);
}

const OWN_NAMES: readonly string[] = ['timeout', 'retries', 'idempotencyKey', 'hashKey', 'select'];

/** Names of others that have been looked at. */
const seen = new Set<string>(OWN_NAMES);
const MAX_SEEN = 1_000;

/**
 * Warns of a name in what a `fetch` was given that is all but one of ours: once for each. Other names that it does not
 * know are ignored, as the standard says.
 */
export function warnOfNearMisses(init: object): void {
  for (const name in init) if (!seen.has(name)) warnOfNearMiss(name);
}

function warnOfNearMiss(name: string): void {
  if (seen.size >= MAX_SEEN) return;
  seen.add(name);
  const near = nearestName(name, OWN_NAMES);
  if (near === undefined) return;
  process.emitWarning(`a request was given '${name}', which is ignored: did you mean '${near}'?`, {
    type: 'HoldfastOptionWarning',
  });
}
