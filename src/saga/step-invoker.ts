import { TimeoutError } from '../errors.ts';
import type { StandardSchema } from '../events/standard-schema.ts';
import { describeIssues } from '../events/standard-schema.ts';
import { deferred } from '../internal/deferred.ts';
import { type RequestContext, runInRequestContext } from '../internal/request-context.ts';
import { retryAfterOf } from '../policies/retry-after.ts';
import { describeAttempt } from './describe-error.ts';
import { type EffectOutcome, performEffect, type Transports } from './perform-effect.ts';
import type { Intent } from './saga-decisions.ts';
import type { EffectInput, StepDefinition } from './saga-definition.ts';
import type { SagaEntry } from './saga-entry.ts';
import type { Serializer } from './serializer.ts';

/** An intent of a saga, with all that is needed to carry it out. */
export interface Invocation {
  readonly step: StepDefinition;
  readonly intent: Intent;
  readonly given: EffectInput;
  /** The context of the request or event that began the saga. */
  readonly context: RequestContext;
  readonly controller: AbortController;
  readonly isOwned: () => boolean;
}

/**
 * Gives the key of an effect: the same in all attempts, in all processes. Those of an operator's retry have
 * another one, with a number, if all before are known to have had no effect. It fits into a header.
 */
export function keyOf(sagaId: string, step: string, type: Intent['type'], number = 1): string {
  const key = `${sagaId}:${step}:${type}`;
  return number === 1 ? key : `${key}:${number}`;
}

/** Carries out intents, and tells as an entry of the journal how each has ended. */
export class StepInvoker {
  readonly #transports: Transports;
  readonly #serializer: Serializer;

  constructor(transports: Transports, serializer: Serializer) {
    this.#transports = transports;
    this.#serializer = serializer;
  }

  /** Makes one attempt of a step or of its compensation. It never rejects. */
  async perform(invocation: Invocation): Promise<SagaEntry> {
    const { intent, step } = invocation;
    const outcome = await this.#performEffect(invocation).catch(toUnreadable);
    if (intent.type === 'invoke') return await this.#afterInvocation(step, intent.attempt, outcome);
    if (outcome.ok) return { type: 'compensated', step: step.name };
    return { type: 'compensation-failed', step: step.name, ...describeFailure(outcome, intent.attempt) };
  }

  #performEffect({ step, intent, given, context, controller, isOwned }: Invocation): Promise<EffectOutcome> {
    const { type, keys, attempt, isRetry } = intent;
    const keyFor = (effect: Intent['type']) => {
      // The event that completes a step may name the key of it.
      const number = effect === 'invoke' && step.completedBy !== undefined ? 1 : keys[effect];
      return keyOf(given.sagaId, step.name, effect, number);
    };
    const attemptOf = {
      activity: type === 'invoke' ? step.invoke! : step.compensate!,
      given,
      idempotencyKey: keyFor(type),
      compensates: type === 'invoke' ? undefined : keyFor('invoke'),
      attempt,
      isRetry,
      controller,
      isOwned,
    };
    return runInRequestContext(context, () => performEffect(attemptOf, this.#transports));
  }

  async #afterInvocation(
    { name, completedBy, result, invoke }: StepDefinition,
    attempt: number,
    outcome: EffectOutcome,
  ): Promise<SagaEntry> {
    if (!outcome.ok) {
      return { type: 'fail', step: name, ...describeFailure(outcome, attempt) };
    }
    if (completedBy !== undefined) return { type: 'await', step: name };
    let value: unknown;
    try {
      value = await validateResult(result, outcome.value, invoke!.timeout);
    } catch (error) {
      const described = describeAttempt(error, attempt);
      return { type: 'fail', step: name, error: described, outcome: 'unknown', final: true };
    }
    try {
      return {
        type: 'complete',
        step: name,
        data: this.#serializer.writeResult(value, `the result of '${name}'`),
      };
    } catch (error) {
      const described = describeAttempt(error, attempt);
      return { type: 'fail', step: name, error: described, outcome: 'happened', final: true };
    }
  }
}

/** The longest time, in milliseconds, for which a callee is left alone because it has asked for it. */
const MAX_RETRY_AFTER = 3_600_000;

/** Gives the outcome of an attempt whose error throws when it is looked at. */
function toUnreadable(error: unknown): EffectOutcome {
  return { ok: false, error, outcome: 'unknown', final: false };
}

function describeFailure(failure: Extract<EffectOutcome, { ok: false }>, attempt: number) {
  const { error, outcome, final } = failure;
  const described = { error: describeAttempt(error, attempt), outcome, final };
  const asked = askedWait(failure);
  // A breaker that is isolated does not know when it will be closed.
  if (asked <= 0 || asked === Infinity) return described;
  return { ...described, retryAfter: Math.min(Math.ceil(asked), MAX_RETRY_AFTER) };
}

function askedWait(failure: EffectOutcome): number {
  try {
    return retryAfterOf(failure) ?? 0;
  } catch {
    // A getter of the error has thrown, or it is a Proxy.
    return 0;
  }
}

/**
 * Gives a result as its schema does.
 *
 * @param timeout milliseconds that the schema may take
 * @throws TypeError that says what the schema has against it, or that it gives nothing; TimeoutError
 */
export async function validateResult(
  schema: StandardSchema | undefined,
  value: unknown,
  timeout: number,
): Promise<unknown> {
  if (schema === undefined) return value;
  const { promise: timedOut, reject } = deferred<never>();
  const message = `the schema of the result did not decide within ${timeout} ms`;
  const timer = setTimeout(() => reject(new TimeoutError(message, timeout)), timeout);
  try {
    const result = await Promise.race([schema['~standard'].validate(value), timedOut]);
    if (result.issues !== undefined)
      throw new TypeError(`the result is not what its schema says: ${describeIssues(result.issues)}`);
    if (!('value' in Object(result)))
      throw new TypeError('the schema of the result gives neither a value nor issues');
    return result.value;
  } finally {
    clearTimeout(timer);
  }
}
