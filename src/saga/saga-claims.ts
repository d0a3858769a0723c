import { RepeatedTask } from '../internal/repeated-task.ts';
import type { SagaPlan } from './saga-definition.ts';
import { type ExecutionHost, SagaExecution } from './saga-execution.ts';
import type { ClaimedSaga, SagaVersions } from './saga-store.ts';

export interface SagaClaimsOptions {
  readonly host: ExecutionHost;
  /** The definitions whose sagas are run. */
  readonly plans: readonly SagaPlan[];
  /** The most sagas that are run at once. */
  readonly concurrency: number;
  readonly onClaim: (claimed: ClaimedSaga) => void;
  readonly onError: (error: unknown) => void;
}

/** Milliseconds between two looks for sagas that are due, at least and at most. */
const SHORTEST_WAIT = 50;
const LONGEST_WAIT = 1_000;
/** The most sagas that are claimed at once, so that processes share what is due. */
const MAX_BATCH = 50;

/**
 * Runs the sagas that are due: it claims them, a few at a time, for as long as it has places; prolongs
 * their leases; and forgets what has ended. It takes over the sagas of processes that have died, all the
 * time and not only when it begins.
 */
export class SagaClaims {
  readonly #host: ExecutionHost;
  readonly #plans: ReadonlyMap<string, SagaPlan>;
  readonly #versions: SagaVersions;
  readonly #concurrency: number;
  readonly #onClaim: (claimed: ClaimedSaga) => void;
  readonly #executions = new Map<string, SagaExecution>();
  /** #runs holds the executions that have not come to their end, those that were replaced included. */
  readonly #runs = new Set<Promise<void>>();
  /** #reserved counts the places of sagas that are being created or claimed. */
  #reserved = 0;
  #stopped = false;
  readonly #claiming: RepeatedTask;
  readonly #renewing: RepeatedTask;

  constructor({ host, plans, concurrency, onClaim, onError }: SagaClaimsOptions) {
    this.#host = host;
    this.#plans = new Map(plans.map((plan) => [versionKey(plan), plan]));
    this.#versions = plans.map(({ name, version }) => ({ name, version }));
    this.#concurrency = concurrency;
    this.#onClaim = onClaim;
    const wait = { shortest: SHORTEST_WAIT, longest: LONGEST_WAIT, onError };
    this.#claiming = new RepeatedTask(() => this.#claim(), wait);
    const third = host.lease / 3;
    this.#renewing = new RepeatedTask(() => this.#renew(), { shortest: third, longest: third, onError });
  }

  /** Looks at once for sagas that are due. */
  wake(): void {
    this.#claiming.wake();
  }

  /** Gives the execution of a saga that this process runs. */
  find(sagaId: string): SagaExecution | undefined {
    return this.#executions.get(sagaId);
  }

  /** Reserves a place for a saga that is about to be created; false if none is free. */
  reserve(): boolean {
    if (this.#free <= 0) return false;
    this.#reserved++;
    return true;
  }

  /** Gives back a place that was reserved. */
  unreserve(): void {
    this.#reserved--;
  }

  /** Runs a saga. @param askedAt when its claim was asked for, on the clock of `performance.now()` */
  run(claimed: ClaimedSaga, askedAt: number): void {
    // Its lease runs out by itself.
    if (this.#stopped) return;
    const { sagaId } = claimed.lease;
    // This process has not noticed yet that the lease of its former claim is over.
    this.#executions.get(sagaId)?.lose();
    const plan = this.#plans.get(versionKey(claimed.saga))!;
    const execution = new SagaExecution(claimed, plan, this.#host, askedAt);
    this.#executions.set(sagaId, execution);
    const running = execution.run().finally(() => {
      this.#runs.delete(running);
      if (this.#executions.get(sagaId) === execution) this.#executions.delete(sagaId);
      if (this.#free === 1) this.wake();
    });
    this.#runs.add(running);
  }

  /**
   * Takes no more sagas, waits until what is under way has ended, and gives all sagas back. After
   * `timeout` milliseconds what is left is aborted.
   */
  async close(timeout: number): Promise<void> {
    await this.#claiming.close();
    for (const execution of this.#executions.values()) execution.drain();
    const abandoned: Promise<void>[] = [];
    const timer = setTimeout(() => {
      for (const execution of this.#executions.values()) abandoned.push(execution.abandon());
    }, timeout);
    await Promise.all(this.#runs);
    clearTimeout(timer);
    await Promise.all(abandoned);
    await this.#renewing.close();
  }

  /** Ends what `close()` still waits for, without the store: the leases run out by themselves. */
  stop(): void {
    this.#stopped = true;
    void this.#claiming.close();
    void this.#renewing.close();
    for (const execution of this.#executions.values()) execution.lose();
  }

  get #free(): number {
    return this.#concurrency - this.#executions.size - this.#reserved;
  }

  async #claim(): Promise<boolean> {
    // Half of the places are left for sagas that are started here meanwhile.
    const limit = Math.min(Math.ceil(this.#free / 2), MAX_BATCH);
    if (limit <= 0) return false;
    const askedAt = performance.now();
    this.#reserved += limit;
    const claimed = await this.#host.store.claim(this.#versions, limit, this.#host.lease).finally(() => {
      this.#reserved -= limit;
    });
    for (const saga of claimed) {
      this.#onClaim(saga);
      this.run(saga, askedAt);
    }
    if (claimed.length === limit) this.wake();
    return claimed.length > 0;
  }

  async #renew(): Promise<boolean> {
    if (this.#executions.size === 0) return false;
    const askedAt = performance.now();
    const executions = [...this.#executions.values()];
    const leases = executions.map(({ claimed }) => claimed.lease);
    const held = await this.#host.store.renew(leases, this.#host.lease);
    for (const execution of executions) {
      execution.onRenewal(askedAt, held.get(execution.claimed.lease.sagaId));
    }
    return true;
  }
}

function versionKey({ name, version }: { name: string; version: number }): string {
  return `${version} ${name}`;
}
