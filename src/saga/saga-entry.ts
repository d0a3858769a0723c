import type { AttemptError } from '../events/event-bus.ts';

export const SAGA_STATUSES = ['running', 'compensating', 'completed', 'compensated', 'stuck'] as const;

/** The states of a saga. `completed` and `compensated` are its ends; `stuck` waits for an operator. */
export type SagaStatus = (typeof SAGA_STATUSES)[number];

/** The states in which a saga may be due. */
export const DUE_STATUSES = ['running', 'compensating', 'stuck'] as const satisfies readonly SagaStatus[];

/**
 * Says what is known of the effect of an attempt that failed: that there is none and never will be;
 * nothing; or that there is one, whose result cannot be kept.
 */
export type FailureOutcome = 'not-happened' | 'unknown' | 'happened';

/** Why a saga is compensated, or stuck. */
export interface SagaReason {
  /** The step that failed; undefined if the saga was cancelled or ran out of time. */
  readonly step?: string | undefined;
  readonly error: Omit<AttemptError, 'attempt' | 'at'>;
}

/**
 * One line of the journal of a saga: something that has happened to it, or an effect that it intends.
 * The state of a saga is what its entries add up to. `data` is text that the orchestrator's `serialize`
 * makes.
 */
export type SagaEntry =
  /** An invocation of a step is about to be asked for, `delay` milliseconds after the entry was written. */
  | { readonly type: 'invoke'; readonly step: string; readonly attempt: number; readonly delay: number }
  /** A step waits for an event, or for its result from outside. */
  | { readonly type: 'await'; readonly step: string }
  | { readonly type: 'complete'; readonly step: string; readonly data: string | undefined }
  /** An attempt to invoke a step has failed. */
  | {
      readonly type: 'fail';
      readonly step: string;
      readonly error: AttemptError;
      readonly outcome: FailureOutcome;
      /** Whether another attempt would end no better. */
      readonly final: boolean;
      /** Milliseconds for which the next attempt has to wait at least: the callee has asked for that. */
      readonly retryAfter?: number | undefined;
    }
  /** The saga begins to compensate. */
  | { readonly type: 'turn'; readonly reason: SagaReason }
  | { readonly type: 'compensate'; readonly step: string; readonly attempt: number; readonly delay: number }
  | { readonly type: 'compensated'; readonly step: string }
  | {
      readonly type: 'compensation-failed';
      readonly step: string;
      readonly error: AttemptError;
      readonly outcome: FailureOutcome;
      /** As of an invocation; but a compensation is attempted again all the same. */
      readonly final: boolean;
      readonly retryAfter?: number | undefined;
    }
  | { readonly type: 'stick'; readonly reason: SagaReason }
  /** The owner has taken in the input with this id. Inputs are taken in one by one, in their order. */
  | { readonly type: 'input'; readonly id: string }
  | { readonly type: 'end'; readonly status: 'completed' | 'compensated' };

/** An entry as it is kept. */
export interface StoredEntry {
  /** When it was written, in milliseconds since 1970 on the clock of the store. */
  readonly at: number;
  readonly entry: SagaEntry;
}

/**
 * A message to a saga from outside of its owner, who reads it before its next entry. Several of one `id`
 * count once.
 */
export type SagaInput = { readonly id: string } & (
  | { readonly type: 'cancel' }
  /** An operator lets a stuck saga go on, with as many attempts as at first. */
  | { readonly type: 'retry' }
  /** An operator declares that the step at which a saga is stuck, or its compensation, needs nothing more. */
  | { readonly type: 'skip'; readonly step: string; readonly reason: string }
  /** The result of a step that is completed from outside, or the event that it waits for. */
  | { readonly type: 'complete'; readonly step: string; readonly data: string | undefined }
  | {
      readonly type: 'fail';
      readonly step: string;
      readonly error: AttemptError;
      /** The step has happened, and its result cannot be kept. */
      readonly outcome?: 'happened' | undefined;
    }
);
