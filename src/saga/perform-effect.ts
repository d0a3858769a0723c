import { createHash } from 'node:crypto';
import { forEachHeader } from '../client/pairs.ts';
import type { HeaderValue, ServiceCall } from '../client/service-call.ts';
import type { ServiceClient } from '../client/service-client.ts';
import { attemptOnce } from '../client/single-attempt.ts';
import {
  ClosedError,
  InvalidEventError,
  InvalidRequestError,
  ServiceResponseError,
  StreamFullError,
  TimeoutError,
} from '../errors.ts';
import type { NewEvent } from '../events/domain-event.ts';
import type { EventBus } from '../events/event-bus.ts';
import { deferred } from '../internal/deferred.ts';
import type { Activity, Effect, EffectInput } from './saga-definition.ts';

/** One attempt to bring about an effect. */
export interface EffectAttempt {
  readonly activity: Activity;
  readonly given: EffectInput;
  readonly idempotencyKey: string;
  /** The key of the invocation that this attempt undoes, for a compensation. */
  readonly compensates: string | undefined;
  readonly attempt: number;
  /** Whether the attempt before has failed. */
  readonly isRetry: boolean;
  /** Ends the attempt, as far as its effect obeys. */
  readonly controller: AbortController;
  /** Whether this process still owns the saga, as far as its clock tells before any timer has. */
  readonly isOwned: () => boolean;
}

/** Where calls and events go: the orchestrator checks that there is what its sagas need. */
export interface Transports {
  readonly client: ServiceClient | undefined;
  readonly bus: EventBus | undefined;
}

export type EffectOutcome =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly error: unknown;
      /** Whether it is known that there was no effect, and that none will come. */
      readonly outcome: 'not-happened' | 'unknown';
      /** Whether another attempt would end no better. */
      readonly final: boolean;
    };

/** Statuses of 4xx after which the same request may succeed, or by which it may have been carried out. */
const TRANSIENT_STATUSES: ReadonlySet<number> = new Set([408, 409, 425, 429]);

/** The outcome of an attempt whose process stood still for too long before it could send anything. */
const NOT_OWNED: EffectOutcome = {
  ok: false,
  error: new Error('the lease of the saga was over before anything was sent'),
  outcome: 'not-happened',
  final: false,
};

/** Makes one attempt. It never rejects, and ends by itself after the timeout of the activity. */
export async function performEffect(attempt: EffectAttempt, to: Transports): Promise<EffectOutcome> {
  const { effect } = attempt.activity;
  switch (effect.kind) {
    case 'call':
      return await performCall(effect, attempt, to.client!);
    case 'run':
      return await performRun(effect, attempt);
    case 'publish':
      return await performPublish(effect, attempt, to.bus!);
  }
}

async function performCall(
  { call: describe }: Extract<Effect, { kind: 'call' }>,
  attempt: EffectAttempt,
  client: ServiceClient,
): Promise<EffectOutcome> {
  let call: ServiceCall;
  try {
    call = toServiceCall(describe(attempt.given), attempt);
  } catch (error) {
    return toMalformed(error);
  }
  if (!attempt.isOwned()) return NOT_OWNED;
  // What undoes a call must not wait for the calls to earn it, nor the sagas of an owner that has died.
  const paidAs = attempt.compensates === undefined && attempt.isRetry ? attempt.attempt : 1;
  const { outcome, sent } = await attemptOnce(client, call, paidAs);
  if (outcome.ok) return outcome;
  const { error } = outcome;
  if (!sent)
    return { ok: false, error, outcome: 'not-happened', final: error instanceof InvalidRequestError };
  const rejected = isRejectedForGood(error);
  return { ok: false, error, outcome: rejected ? 'not-happened' : 'unknown', final: rejected };
}

/** Gives the outcome of an attempt whose function has thrown, or described nothing that can be sent. */
function toMalformed(error: unknown): EffectOutcome {
  return { ok: false, error, outcome: 'not-happened', final: true };
}

function toServiceCall(
  call: ServiceCall,
  { activity, idempotencyKey, compensates, controller }: EffectAttempt,
): ServiceCall {
  const own = { ...call, idempotencyKey, timeout: activity.timeout, signal: controller.signal };
  if (compensates === undefined) return own;
  const headers: [string, HeaderValue][] = [];
  forEachHeader(call.headers ?? {}, (name, value) => {
    headers.push([name as string, value as HeaderValue]);
  });
  return { ...own, headers: [...headers, ['Compensates-Key', compensates]] };
}

/** Whether a service has said that it has not done what the request asks for, and will not. */
function isRejectedForGood(error: unknown): boolean {
  if (!(error instanceof ServiceResponseError)) return false;
  return error.status >= 400 && error.status < 500 && !TRANSIENT_STATUSES.has(error.status);
}

/**
 * Calls the function of a step. It is given up at its timeout, whether it obeys its signal or not; until
 * then it is waited for, also when it is cancelled, so that a compensation begins after it.
 */
async function performRun(
  { run }: Extract<Effect, { kind: 'run' }>,
  { activity, given, idempotencyKey, attempt, controller }: EffectAttempt,
): Promise<EffectOutcome> {
  const { timeout } = activity;
  const { signal } = controller;
  const { promise: timedOut, reject } = deferred<never>();
  const timer = setTimeout(() => {
    const error = new TimeoutError(`the step did not finish within ${timeout} ms`, timeout);
    controller.abort(error);
    reject(error);
  }, timeout);
  try {
    const running = run(given, { signal, idempotencyKey, token: idempotencyKey, attempt });
    return { ok: true, value: await Promise.race([running, timedOut]) };
  } catch (error) {
    return { ok: false, error, outcome: 'unknown', final: false };
  } finally {
    clearTimeout(timer);
  }
}

async function performPublish(
  { publish: describe }: Extract<Effect, { kind: 'publish' }>,
  { activity, given, idempotencyKey, isOwned }: EffectAttempt,
  bus: EventBus,
): Promise<EffectOutcome> {
  let event: NewEvent;
  try {
    event = { ...describe(given), eventId: uuidOf(idempotencyKey) };
  } catch (error) {
    return toMalformed(error);
  }
  if (!isOwned()) return NOT_OWNED;
  try {
    await bus.publish(event, { timeout: activity.timeout });
    return { ok: true, value: undefined };
  } catch (error) {
    const invalid = error instanceof InvalidEventError;
    const rejected = invalid || error instanceof StreamFullError || error instanceof ClosedError;
    return { ok: false, error, outcome: rejected ? 'not-happened' : 'unknown', final: invalid };
  }
}

/** Makes a UUID of a text, the same each time. Source: RFC 9562, section 5.8, version 8. */
export function uuidOf(text: string): string {
  const bytes = createHash('sha256').update(text).digest().subarray(0, 16);
  bytes[6] = 0x80 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
