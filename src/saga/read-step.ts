import { isEventType } from '../events/event-pattern.ts';
import { decided } from '../internal/decision.ts';
import { shown } from '../internal/shown.ts';
import {
  type Check,
  hasMethods,
  integer,
  isFunction,
  nonEmptyString,
  number,
  objectOf,
  validateOptions,
} from '../internal/validate.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import type { Activity, Effect, StepDefinition } from './saga-definition.ts';
import type { Compensation, EventWait, StepOptions, StepRetry, WaitOptions } from './step-options.ts';

/** Options of any step: their types are checked where it is defined. */
type AnyStep = StepOptions<never, never, unknown>;
type AnyCompensation = Compensation<never, never, unknown>;

/** How an activity is attempted whose options say nothing of it. */
type ActivityDefaults = Required<StepRetry>;

/** A step that can still be undone is given up soon. */
const FORWARD: ActivityDefaults = {
  maxAttempts: 3,
  backoff: exponentialBackoff({ base: 100, max: 10_000 }),
};
/** An effect that has to succeed in the end is attempted for two to four minutes, the first times soon. */
const PERSISTENT: ActivityDefaults = {
  maxAttempts: 10,
  backoff: exponentialBackoff({ base: 200, factor: 3, max: 60_000, jitter: 'equal' }),
};

const CALL_TIMEOUT = 10_000;
const RUN_TIMEOUT = 30_000;

const KINDS = ['call', 'run', 'publish'] as const;

const EFFECT_CHECKS = { call: isFunction, run: isFunction, publish: isFunction };
const ATTEMPT_CHECKS = {
  timeout: number(1, 2 ** 31 - 1),
  retry: objectOf('an object such as { maxAttempts: 3 }'),
};
const schema: Check = (value, option) => {
  // A schema of arktype is a function.
  hasMethods('validate')(
    (value as { '~standard'?: unknown } | null)?.['~standard'],
    `${option}: its '~standard'`,
  );
};
const STEP_CHECKS = {
  ...EFFECT_CHECKS,
  ...ATTEMPT_CHECKS,
  result: schema,
  compensate: objectOf('an object with call, run or publish'),
  completedBy: objectOf('an object such as { event, correlate }'),
};
const COMPENSATION_CHECKS = { ...EFFECT_CHECKS, ...ATTEMPT_CHECKS };
const RETRY_CHECKS = { maxAttempts: integer(1, Infinity), backoff: isFunction };
const eventType: Check = (value, option) => {
  nonEmptyString(value, option);
  if (!isEventType(value)) throw new TypeError(`${option} must be the type of an event; got ${shown(value)}`);
};
const WAIT_CHECKS = {
  event: eventType,
  failedBy: eventType,
  correlate: isFunction,
  sagaId: isFunction,
  timeout: number(1),
};

/**
 * Reads a step that has an effect.
 *
 * @param owner names saga and step, for errors
 * @throws TypeError or RangeError that names the option that is not allowed
 */
export function readStep(owner: string, name: string, options: AnyStep, pivoted: boolean): StepDefinition {
  validateOptions(owner, options, STEP_CHECKS);
  const { compensate, completedBy, result } = options;
  if (pivoted && compensate !== undefined) {
    throw new TypeError(
      `${owner} is after the pivot, from which a saga only goes forward: it has no compensate`,
    );
  }
  return {
    name,
    invoke: readActivity(owner, options, pivoted ? PERSISTENT : FORWARD),
    completedBy: completedBy && readWait(`${owner}, completedBy`, completedBy),
    result,
    compensate: compensate && readCompensation(`${owner}, compensate`, compensate),
  };
}

/** Reads a step that only waits for an event. */
export function readWaitStep(
  owner: string,
  name: string,
  options: WaitOptions<never, unknown>,
): StepDefinition {
  validateOptions(owner, options, { ...WAIT_CHECKS, result: schema });
  const { result, ...wait } = options;
  return { name, invoke: undefined, completedBy: readWait(owner, wait), result, compensate: undefined };
}

function readCompensation(owner: string, options: AnyCompensation): Activity {
  validateOptions(owner, options, COMPENSATION_CHECKS);
  return readActivity(owner, options, PERSISTENT);
}

function readActivity(
  owner: string,
  options: AnyStep | AnyCompensation,
  defaults: ActivityDefaults,
): Activity {
  const effect = readEffect(owner, options);
  const { timeout = effect.kind === 'call' ? CALL_TIMEOUT : RUN_TIMEOUT, retry = {} } = options;
  return { effect, timeout, ...readRetry(`${owner}, retry`, retry, defaults) };
}

function readRetry(owner: string, options: StepRetry, { maxAttempts, backoff }: ActivityDefaults) {
  validateOptions(owner, options, RETRY_CHECKS);
  return {
    maxAttempts: options.maxAttempts ?? maxAttempts,
    backoff: deciding(options.backoff ?? backoff, `${owner} option 'backoff'`),
  };
}

function readEffect(owner: string, options: AnyStep | AnyCompensation): Effect {
  const kinds = KINDS.filter((kind) => options[kind] !== undefined);
  const [kind] = kinds;
  if (kind === undefined || kinds.length > 1) {
    const got = kinds.length === 0 ? 'none' : kinds.join(' and ');
    throw new TypeError(`${owner} must have exactly one of call, run and publish; got ${got}`);
  }
  const given = options[kind] as Parameters<typeof deciding>[0];
  // A `run` is waited for; the others describe what is to be sent.
  return { kind, [kind]: kind === 'run' ? given : deciding(given, `${owner} option '${kind}'`) } as Effect;
}

function readWait(owner: string, options: EventWait<never>): EventWait<unknown> {
  validateOptions(owner, options, WAIT_CHECKS);
  if (options.event === undefined) throw new TypeError(`${owner} needs the option 'event'`);
  if (options.event === options.failedBy) {
    throw new TypeError(`${owner} must not be failed by the event '${options.event}' that completes it`);
  }
  if ((options.correlate === undefined) === (options.sagaId === undefined)) {
    throw new TypeError(`${owner} must have exactly one of correlate and sagaId`);
  }
  const { correlate, sagaId, ...rest } = options as EventWait<unknown>;
  const correlation =
    correlate === undefined
      ? { sagaId: deciding(sagaId, `${owner} option 'sagaId'`) }
      : { correlate: deciding(correlate, `${owner} option 'correlate'`) };
  return { ...rest, ...correlation };
}

/** Has a function of the user decide at once: a promise would count as yes, or as an object. */
function deciding<Args extends unknown[], T>(
  decide: (...args: Args) => T,
  option: string,
): (...args: Args) => T {
  return (...args) => decided(decide(...args), option);
}
