import type { ServiceCall } from '../client/service-call.ts';
import type { DomainEvent, EventMetadata } from '../events/domain-event.ts';
import type { StandardSchema } from '../events/standard-schema.ts';
import type { Backoff } from '../policies/backoff.ts';

/** Tells a step about its saga. All values are as JSON has kept them. */
export interface StepInput<Input, Results> {
  readonly sagaId: string;
  readonly input: Input;
  /** The results of the steps before this one, by their names. */
  readonly results: Results;
}

/** Tells a compensation about its saga, and about the step that it undoes. */
export interface CompensationInput<Input, Results, Result> extends StepInput<Input, Results> {
  /** The result of the step; undefined if nobody knows whether the step has had its effect. */
  readonly result: Result | undefined;
}

/** Tells a `run` about the attempt that it is. */
export interface StepContext {
  /**
   * Aborted when the attempt has taken too long, when the saga must be compensated, or when this
   * process has lost it to another one.
   */
  readonly signal: AbortSignal;
  /** The same in all attempts of this step of this saga, in all processes. */
  readonly idempotencyKey: string;
  /** For a step that is `completedBy` an event: what `correlate` is given. It is the idempotency key. */
  readonly token: string;
  /** 1 for the first attempt. Attempts of other processes count. */
  readonly attempt: number;
}

/** A call to a service. Its idempotency key, its time and its attempts are the step's. */
export type StepCall = Omit<ServiceCall, OfStep> & { readonly [Part in OfStep]?: never };
type OfStep = 'idempotencyKey' | 'retries' | 'timeout' | 'signal';

/** An event that a step publishes. Its eventId follows from the idempotency key. */
export interface StepEvent {
  readonly eventType: string;
  readonly aggregateId: string;
  readonly data: unknown;
  readonly metadata?: Partial<EventMetadata> | undefined;
  readonly eventId?: never | undefined;
}

/** How an effect is brought about: exactly one of these. */
type CallEffect<Given> = {
  readonly call: (given: Given) => StepCall;
  /** Every function has a `call`, but is no effect. */
  readonly apply?: never | undefined;
  readonly run?: undefined;
  readonly publish?: undefined;
};
type RunEffect<Given, Result> = {
  readonly run: (given: Given, context: StepContext) => Result;
  readonly call?: undefined;
  readonly publish?: undefined;
};
type PublishEffect<Given> = {
  readonly publish: (given: Given) => StepEvent;
  readonly call?: undefined;
  readonly run?: undefined;
};

export interface StepRetry {
  /**
   * Attempts, the first one included. One of which nothing was sent does not count for a compensation, nor
   * after the pivot. Default 3; 10 for a compensation and for steps after the pivot.
   */
  maxAttempts?: number | undefined;
  /**
   * The waits between attempts. Default: exponential, doubled from 100 ms to 10 s, with full jitter; for a
   * compensation and for steps after the pivot tripled from 200 ms to 60 s, with equal jitter.
   * One that throws, or gives no number, counts as 1 s, with a warning.
   */
  backoff?: Backoff | undefined;
}

interface AttemptOptions {
  /** Milliseconds that an attempt may take. Default 10,000 for a `call`, 30,000 for the others. */
  timeout?: number | undefined;
  retry?: StepRetry | undefined;
}

/** How the effect of a step is undone. It may be asked for several times, and also if there was no effect. */
export type Compensation<Input, Results, Result> = AttemptOptions &
  (
    | CallEffect<CompensationInput<Input, Results, Result>>
    | RunEffect<CompensationInput<Input, Results, Result>, unknown>
    | PublishEffect<CompensationInput<Input, Results, Result>>
  );

/** Tells the event of one saga from those of the others: by `sagaId`, or by `correlate`. */
type Correlation<Input> =
  | {
      /**
       * Reads from an event whose it is: nobody's if it throws, or gives what is no id. Cheap with any
       * number of sagas.
       */
      sagaId: (event: DomainEvent) => string | undefined;
      correlate?: undefined;
    }
  | {
      /**
       * Whether an event is this saga's. It is called for each saga of the definition that has not ended,
       * so it is for hundreds of sagas, not for many thousands. If it throws, the event is not this saga's.
       */
      correlate: (
        event: DomainEvent,
        saga: { readonly sagaId: string; readonly input: Input; readonly token: string },
      ) => boolean;
      sagaId?: undefined;
    };

/** The event that a step waits for. One that comes early is kept. */
export type EventWait<Input> = Correlation<Input> & {
  /** The type of the event. Its `data` are the result of the step. */
  event: string;
  /**
   * The type of the event that says that the step has failed. Its `data` say why: a text, or one under
   * `message`, `error` or `reason`. Default: none.
   */
  failedBy?: string | undefined;
  /** Milliseconds for which the event is waited for; then the step has failed. Default: no bound. */
  timeout?: number | undefined;
};

export type WaitOptions<Input, Result> = EventWait<Input> & {
  /** Checks and types the result. */
  result?: StandardSchema<Result> | undefined;
};

interface StepBehaviour<Input, Results, Result> extends AttemptOptions {
  /** Undoes the step. There is none for a step that has nothing to undo, nor after the pivot. */
  compensate?: Compensation<Input, Results, Result> | undefined;
  /** Checks and types the result: what the effect has given, or the data of the event that completes the step. */
  result?: StandardSchema<Result> | undefined;
}

/** A step that is complete when its effect has ended: with what a `run` gives, or a service has responded. */
export type EffectStepOptions<Input, Results, Result> = StepBehaviour<Input, Results, Result> & {
  completedBy?: undefined;
} & (
    | CallEffect<StepInput<Input, Results>>
    | RunEffect<StepInput<Input, Results>, PromiseLike<Result> | Result>
    | PublishEffect<StepInput<Input, Results>>
  );

/** A step whose effect asks for something that an event tells of. Its data are the result. */
export type EventStepOptions<Input, Results, Result> = StepBehaviour<Input, Results, Result> & {
  /**
   * The step is not complete when its effect was asked for, but with this event, or with
   * `orchestrator.complete()`.
   */
  completedBy: EventWait<Input>;
} & (
    | CallEffect<StepInput<Input, Results>>
    | RunEffect<StepInput<Input, Results>, unknown>
    | PublishEffect<StepInput<Input, Results>>
  );

export type StepOptions<Input, Results, Result> =
  | EffectStepOptions<Input, Results, Result>
  | EventStepOptions<Input, Results, Result>;

/** The result of a step with these options. */
export type ResultOf<Step> = Step extends { result: StandardSchema<infer Result> }
  ? Result
  : Step extends { completedBy: object }
    ? unknown
    : Step extends { run: (...args: never) => infer Given }
      ? Awaited<Given>
      : unknown;
