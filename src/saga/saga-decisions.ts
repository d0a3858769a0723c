import { emitWarning } from '../internal/emitter.ts';
import { type Backoff, computeWait } from '../policies/backoff.ts';
import type { Attempts } from './attempts.ts';
import type { Activity, SagaPlan, Stage, StepDefinition } from './saga-definition.ts';
import type { SagaEntry, SagaReason } from './saga-entry.ts';
import { isUnderWay, mayHaveHappened, type SagaState, type StepState } from './saga-state.ts';

/** The circumstances of a decision: all that it depends on besides the journal. */
export interface Situation {
  /** The time of the store. */
  readonly now: number;
  /** When the saga was created, by the same clock. */
  readonly createdAt: number;
  /** The steps whose invocation or compensation this process carries out. */
  readonly active: Pick<ReadonlySet<string>, 'has'>;
  /** The intents that a former owner may have carried out, or may be at: see `intentKey`. */
  readonly orphans: ReadonlySet<string>;
}

/** An effect that is to be asked for. */
export interface Intent {
  readonly type: 'invoke' | 'compensate';
  readonly step: string;
  readonly attempt: number;
  /**
   * Whether the retry budget of the service pays for it: if the attempt before has failed. The first one
   * of a new owner repeats what may have succeeded, and one that was postponed for long is made in the end.
   */
  readonly isRetry: boolean;
  /** The numbers of the idempotency keys of the step and of its compensation. */
  readonly keys: Readonly<Record<'invoke' | 'compensate', number>>;
  readonly startAt: number;
}

/**
 * Takeovers of one intent that nobody slows down. A saga that kills its owner again and again must not
 * be what the processes are busy with.
 */
const FREE_TAKEOVERS = 3;
const LONGEST_TAKEOVER_DELAY = 60_000;

/**
 * Postponements in a row after which an attempt is made without the retry budget. It is earned by first
 * attempts: where there are no more of those, sagas would wait for it for good.
 */
const MAX_POSTPONEMENTS = 5;

/** Postponements in a row after which the wait grows no more: not every backoff has a longest wait. */
const GROWING_POSTPONEMENTS = 10;

/** Milliseconds before a retry whose backoff fails. */
const FALLBACK_WAIT = 1_000;

const CANCELLED: SagaReason = { error: { name: 'Error', message: 'the saga was cancelled' } };

/**
 * Decides what is to be written next, from what the journal adds up to: the next intents, a turn, an
 * end. An empty list says that the saga waits.
 *
 * ```text
 * running ──── a step fails, time is over, or it is cancelled ────▸ compensating
 *    │  ╲                                                            ╱     │
 *    │   ╲ a step after the pivot fails          a compensation fails      │
 *    ▼    ╲──────────────────────▸ stuck ◂──────────────────────────╱      ▼
 * completed                 (retry: back to where it was)              compensated
 * ```
 */
export function decide(plan: SagaPlan, state: SagaState, situation: Situation): SagaEntry[] {
  if (state.status === 'running') return goForward(plan, state, situation);
  if (state.status === 'compensating') return goBack(plan, state, situation);
  return [];
}

/** Whether a cancellation still has an effect: also while the saga is stuck. */
export function isCancellable(plan: SagaPlan, state: SagaState): boolean {
  return state.direction === 'running' && !isPivotReached(plan, state);
}

/**
 * Gives the time at which a decision is due although nothing has happened: when an intent is to be
 * carried out, or a wait is over. Undefined if there is no such time.
 */
export function nextDue(plan: SagaPlan, state: SagaState, situation: Situation): number | undefined {
  let next = timeoutAt(plan, state, situation);
  for (const step of plan.steps) next = Math.min(next, dueAt(step, state));
  for (const { step, startAt } of intentsOf(state)) {
    if (!situation.active.has(step)) next = Math.min(next, startAt);
  }
  return next === Infinity ? undefined : next;
}

/** Lists the intents of a saga in its present direction. */
export function intentsOf({ status, steps }: SagaState): Intent[] {
  const intents: Intent[] = [];
  for (const step in steps) {
    const { forward, backward, invocations, compensations } = steps[step]!;
    const keys = { invoke: invocations.key, compensate: compensations.key };
    if (status === 'running' && forward.phase === 'invoking') {
      intents.push({ type: 'invoke', step, ...latestOf(invocations), keys, startAt: forward.startAt });
    } else if (status === 'compensating' && backward.phase === 'compensating') {
      intents.push({ type: 'compensate', step, ...latestOf(compensations), keys, startAt: backward.startAt });
    }
  }
  return intents;
}

function latestOf({ latest, unanswered, postponed }: Attempts): Pick<Intent, 'attempt' | 'isRetry'> {
  return { attempt: latest, isRetry: latest > 1 && unanswered === 1 && postponed < MAX_POSTPONEMENTS };
}

/** Tells the intents of a saga apart. */
export function intentKey({ type, step, attempt }: Pick<Intent, 'type' | 'step' | 'attempt'>): string {
  return `${type} ${step} ${attempt}`;
}

function isOrphaned(
  type: Intent['type'],
  step: string,
  { latest }: Attempts,
  { orphans }: Situation,
): boolean {
  return orphans.has(intentKey({ type, step, attempt: latest }));
}

function goForward(plan: SagaPlan, state: SagaState, situation: Situation): SagaEntry[] {
  if (state.cancelled) return [{ type: 'turn', reason: CANCELLED }];
  const stage = plan.stages.find((steps) => !isComplete(steps, state));
  if (stage === undefined) return [{ type: 'end', status: 'completed' }];
  const onlyForward = isPivotReached(plan, state);
  const settled = stage.flatMap((step) => settle(step, state.steps[step.name]!, situation));
  if (settled.length > 0) return settled;

  const failed = stage.find((step) => hasGivenUp(step, state, onlyForward));
  const sticks = failed !== undefined && (onlyForward || hasHappened(state.steps[failed.name]!));
  if (failed !== undefined && !sticks) return [{ type: 'turn', reason: reasonOf(failed, state) }];
  if (situation.now >= timeoutAt(plan, state, situation)) return [{ type: 'turn', reason: timeoutOf(plan) }];

  const entries = stage.flatMap((step) => advance(step, state, situation, onlyForward));
  if (entries.length > 0 || !sticks || stage.some((step) => isUnderWay(state.steps[step.name]!)))
    return entries;
  return [{ type: 'stick', reason: reasonOf(failed, state) }];
}

/** Gives the next entry of a step of the present stage. */
function advance(
  step: StepDefinition,
  state: SagaState,
  situation: Situation,
  onlyForward: boolean,
): SagaEntry[] {
  const { name, invoke } = step;
  const { forward, invocations } = state.steps[name]!;
  switch (forward.phase) {
    case 'pending':
      if (invoke === undefined) return [{ type: 'await', step: name }];
      return [intend('invoke', name, invocations, 0)];
    case 'invoking':
      if (!isOrphaned('invoke', name, invocations, situation)) return [];
      if (!onlyForward && invocations.made >= invoke!.maxAttempts)
        return [loseAttempt(name, invocations, situation)];
      return [intend('invoke', name, invocations, takeoverDelay(invocations, forward.startAt, situation))];
    case 'failed':
      if (hasGivenUp(step, state, onlyForward)) return [];
      return [intend('invoke', name, invocations, retryDelay(invoke!, invocations))];
    case 'awaiting':
    case 'completed':
      return [];
  }
}

/** Ends a step by its event, or by its result from outside, or because that has not come in time. */
function settle(step: StepDefinition, state: StepState, situation: Situation): SagaEntry[] {
  if (!isSettleable(step, state, situation)) return [];
  const { forward, given, invocations } = state;
  const { name, invoke } = step;
  const { now } = situation;
  const outcome = invoke === undefined ? 'not-happened' : 'unknown';
  if (given?.type === 'complete') return [{ type: 'complete', step: name, data: given.data }];
  if (given?.type === 'fail') {
    return [{ type: 'fail', step: name, error: given.error, outcome: given.outcome ?? outcome, final: true }];
  }
  if (forward.phase !== 'awaiting' || now < forward.since + (step.completedBy?.timeout ?? Infinity))
    return [];
  const message = `no event came within ${step.completedBy!.timeout} ms`;
  const error = { attempt: invocations.latest, at: now, name: 'TimeoutError', code: 'ERR_TIMEOUT', message };
  return [{ type: 'fail', step: name, error, outcome, final: true }];
}

/**
 * Whether a step can end by what has come from outside: while it waits for that, and, where an event completes
 * it, as soon as one attempt was made, whose response may be lost. An attempt that is under way ends first.
 */
function isSettleable(
  { name, completedBy }: StepDefinition,
  { forward, invocations }: StepState,
  situation: Situation,
): boolean {
  if (forward.phase === 'awaiting') return true;
  if (completedBy === undefined || situation.active.has(name)) return false;
  if (forward.phase === 'failed') return true;
  if (forward.phase !== 'invoking') return false;
  return invocations.latest > 1 || isOrphaned('invoke', name, invocations, situation);
}

/**
 * Undoes, one at a time, what has happened or may have: first what is in doubt, then the steps in the
 * reverse order of their completion. Invocations that were under way at the turn end first.
 */
function goBack(plan: SagaPlan, state: SagaState, situation: Situation): SagaEntry[] {
  const { steps } = plan;
  if (steps.some(({ name }) => situation.active.has(name))) return [];
  const begun = steps.find(({ name }) => isBackwardBegun(state.steps[name]!));
  if (begun !== undefined) return compensateOn(begun, state, situation);
  const next = findLatest(steps, state);
  if (next === undefined) return [{ type: 'end', status: 'compensated' }];
  return [intend('compensate', next.name, state.steps[next.name]!.compensations, 0)];
}

/** Goes on with a compensation that was intended before. */
function compensateOn(step: StepDefinition, state: SagaState, situation: Situation): SagaEntry[] {
  const { name } = step;
  const compensate = step.compensate!;
  const { backward, compensations } = state.steps[name]!;
  if (backward.phase === 'compensating') {
    if (!isOrphaned('compensate', name, compensations, situation)) return [];
    return [
      intend('compensate', name, compensations, takeoverDelay(compensations, backward.startAt, situation)),
    ];
  }
  if (backward.phase === 'failed' && compensations.failed >= compensate.maxAttempts) {
    return [{ type: 'stick', reason: { step: name, error: withoutAttempt(backward.error) } }];
  }
  return [intend('compensate', name, compensations, retryDelay(compensate, compensations))];
}

function findLatest(steps: readonly StepDefinition[], state: SagaState): StepDefinition | undefined {
  let latest: StepDefinition | undefined;
  for (const step of steps) {
    if (!needsCompensation(step, state.steps[step.name]!)) continue;
    if (latest === undefined || orderOf(step, state) >= orderOf(latest, state)) latest = step;
  }
  return latest;
}

function needsCompensation({ compensate }: StepDefinition, step: StepState): boolean {
  return compensate !== undefined && step.backward.phase === 'none' && mayHaveHappened(step);
}

/** A step of which nobody knows whether it has happened may happen yet: it counts as the latest. */
function orderOf({ name }: StepDefinition, state: SagaState): number {
  const { forward } = state.steps[name]!;
  return forward.phase === 'completed' ? forward.order : Infinity;
}

function isBackwardBegun({ backward }: StepState): boolean {
  return backward.phase === 'compensating' || backward.phase === 'failed';
}

function isComplete(stage: Stage, state: SagaState): boolean {
  return stage.every(({ name }) => state.steps[name]!.forward.phase === 'completed');
}

function isPivotReached({ stages, pivotAt }: SagaPlan, state: SagaState): boolean {
  return stages.every((stage, index) => index >= pivotAt || isComplete(stage, state));
}

function hasHappened({ forward }: StepState): boolean {
  return forward.phase === 'failed' && forward.outcome === 'happened';
}

/**
 * Whether a step has failed for good. An attempt whose owner has died counts while the saga can still
 * turn; afterwards only those count that are known to have failed.
 */
function hasGivenUp({ name, invoke }: StepDefinition, state: SagaState, onlyForward: boolean): boolean {
  const { forward, invocations } = state.steps[name]!;
  if (forward.phase !== 'failed') return false;
  if (forward.final || invoke === undefined) return true;
  return (onlyForward ? invocations.failed : invocations.made) >= invoke.maxAttempts;
}

function reasonOf({ name }: StepDefinition, state: SagaState): SagaReason {
  const { forward } = state.steps[name]!;
  if (forward.phase !== 'failed') throw new TypeError(`the step '${name}' has not failed`);
  return { step: name, error: withoutAttempt(forward.error) };
}

function withoutAttempt({ name, message, code }: SagaReason['error']): SagaReason['error'] {
  return code === undefined ? { name, message } : { name, message, code };
}

/** Gives when the saga must be compensated, as its time is over; Infinity if that does not apply to it. */
function timeoutAt(plan: SagaPlan, state: SagaState, { createdAt }: Situation): number {
  const applies = state.status === 'running' && !state.resumed && !isPivotReached(plan, state);
  return applies ? createdAt + plan.timeout : Infinity;
}

function timeoutOf({ timeout }: SagaPlan): SagaReason {
  const message = `the saga was not done within its ${timeout} ms`;
  return { error: { name: 'TimeoutError', message, code: 'ERR_TIMEOUT' } };
}

function intend(type: 'invoke' | 'compensate', step: string, { latest }: Attempts, delay: number): SagaEntry {
  return { type, step, attempt: latest + 1, delay };
}

function retryDelay({ backoff }: Activity, { failed, postponed, delay, retryAfter }: Attempts): number {
  const number = Math.max(1, failed + Math.min(postponed, GROWING_POSTPONEMENTS));
  return Math.max(Math.round(waitBefore(backoff, number, delay)), retryAfter);
}

/** Computes the wait before a retry. A backoff of the user that fails must not leave the saga stuck. */
function waitBefore(backoff: Backoff, number: number, previous: number): number {
  try {
    return computeWait(backoff, "a step's option 'backoff'", number, previous);
  } catch (error) {
    emitWarning(error, `The backoff of a step failed. The step is attempted again in ${FALLBACK_WAIT} ms.`);
    return FALLBACK_WAIT;
  }
}

/** An intent that had to wait still has to; and so does one that has outlived several owners. */
function takeoverDelay({ unanswered }: Attempts, startAt: number, { now }: Situation): number {
  const rest = Math.max(0, startAt - now);
  if (unanswered <= FREE_TAKEOVERS) return rest;
  const slowed = 1_000 * 2 ** Math.min(unanswered - FREE_TAKEOVERS - 1, 10);
  return Math.max(rest, Math.min(slowed, LONGEST_TAKEOVER_DELAY));
}

/** Records that the last attempt of a step went down with its owner. */
function loseAttempt(step: string, { latest }: Attempts, { now }: Situation): SagaEntry {
  const message = 'the process that made the attempt has ended before its outcome was known';
  const error = { attempt: latest, at: now, name: 'Error', message };
  return { type: 'fail', step, error, outcome: 'unknown', final: true };
}

function dueAt(step: StepDefinition, state: SagaState): number {
  const { forward } = state.steps[step.name]!;
  if (state.status !== 'running' || forward.phase !== 'awaiting') return Infinity;
  return forward.since + (step.completedBy?.timeout ?? Infinity);
}
