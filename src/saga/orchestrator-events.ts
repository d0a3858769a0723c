import type { AttemptError } from '../events/event-bus.ts';
import type { FailureOutcome, SagaReason } from './saga-entry.ts';

interface SagaName {
  readonly sagaId: string;
  readonly name: string;
}

/** The events that a SagaOrchestrator emits of the sagas that it runs. */
export interface SagaOrchestratorEvents {
  /** A saga is written; it may run elsewhere. */
  start: [event: SagaName];
  /** A step is complete. */
  step: [event: SagaName & { step: string }];
  /** An attempt of a step, or of its compensation, failed. */
  fail: [
    event: SagaName & {
      step: string;
      during: 'invoke' | 'compensate';
      error: AttemptError;
      /** Says what is known of its effect. */
      outcome: FailureOutcome;
    },
  ];
  /** A saga begins to compensate. */
  compensate: [event: SagaName & { reason: SagaReason }];
  complete: [event: SagaName];
  compensated: [event: SagaName & { reason: SagaReason | undefined }];
  /** A saga waits for an operator. */
  stuck: [event: SagaName & { reason: SagaReason }];
  /** This process runs a saga; it takes it over from one that has died or stalled, or that was cut off. */
  claim: [event: SagaName & { takeover: boolean }];
  /** Another process may run the saga: this one was cut off, or stalled, for too long. */
  lose: [event: SagaName];
  /**
   * A task in the background failed, and is done again; or a `correlate` or `sagaId` threw, so that no saga
   * got the event by it.
   */
  error: [event: { error: unknown; sagaId?: string | undefined }];
}
