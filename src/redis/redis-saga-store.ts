import { RedisError, SagaUnreadableError } from '../errors.ts';
import { partitionOf } from '../events/partition.ts';
import { groupBy } from '../internal/group-by.ts';
import { integer, MAX_DELAY, matching, requireOption, validateOptions } from '../internal/validate.ts';
import { collectClaims } from '../saga/collect-claims.ts';
import { toCreated } from '../saga/created-saga.ts';
import { describeError } from '../saga/describe-error.ts';
import type { PublishEvents } from '../saga/publish-by-saga.ts';
import type { SagaInput } from '../saga/saga-entry.ts';
import {
  type ClaimedSaga,
  type CreateResult,
  type InputCondition,
  type ListOptions,
  maxInputs,
  type NewSaga,
  type SagaChange,
  type SagaLease,
  type SagaStore,
  type SagaSummary,
  type SagaVersions,
  type SendResult,
  type StoredSaga,
  type SummaryWithInput,
  type WriteResult,
} from '../saga/saga-store.ts';
import { warnOfEviction } from './eviction-warning.ts';
import { checkRedisSource, RedisConnection, type RedisSource, type Script } from './redis-connection.ts';
import { publishKept } from './saga-event-publisher.ts';
import { BUCKETS, SagaKeys } from './saga-keys.ts';
import { listSagas } from './saga-list.ts';
import { type SagaReply, type SummaryReply, toSaga, toSummary, withInput } from './saga-replies.ts';
import * as scripts from './saga-scripts.ts';

export interface RedisSagaStoreOptions {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis. A client that is given
   * stays open.
   */
  redis: RedisSource;
  /** The beginning of the names of all keys. Default `holdfast`. */
  keyPrefix?: string | undefined;
  /** Milliseconds that a command may take, the connection to Redis included. Default 5,000. */
  commandTimeout?: number | undefined;
}

const OWNER = 'RedisSagaStore';

/** The most sagas that `removeEnded` removes, and the most that one script does. */
const MAX_REMOVED = 1_000;
const REMOVED_AT_ONCE = 100;

/** A saga that is due. */
type Due = readonly [sagaId: string, version: string, name: string, at: string];

/**
 * Keeps sagas in one Redis (6.2 or later) or Valkey, or a cluster. Give Redis `appendonly yes` and a
 * `maxmemory-policy` of `noeviction`: what Redis loses of a saga has happened all the same.
 *
 * A write is one script on one saga, so a step costs one round trip; those of one turn of the event loop
 * are sent together. A Redis that is full takes no new saga and no new entry; leases, removals and the
 * publishing of events go on.
 *
 * @example
 * const store = new RedisSagaStore({ redis: 'redis://127.0.0.1:6379' });
 * const orchestrator = new SagaOrchestrator({ store, sagas: [orderSaga], client });
 */
export class RedisSagaStore implements SagaStore {
  readonly #connection: RedisConnection;
  readonly #keys: SagaKeys;
  /** #buckets names all buckets, once Redis has told their number. */
  #buckets: readonly string[] | undefined = undefined;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: RedisSagaStoreOptions) {
    validateOptions(OWNER, options, {
      redis: checkRedisSource,
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      commandTimeout: integer(1, MAX_DELAY),
    });
    requireOption(OWNER, options, 'redis');
    const { redis, keyPrefix = 'holdfast', commandTimeout = 5_000 } = options;
    this.#connection = new RedisConnection(redis, commandTimeout);
    this.#keys = new SagaKeys(keyPrefix);
  }

  /** @throws RedisError if Redis is away, or is full. */
  async create(saga: NewSaga): Promise<CreateResult> {
    const { sagaId, name, version, input, context, entries, cancellable, lease, events } = saga;
    await this.#all(true);
    const reply = await this.#evaluate(scripts.CREATE, sagaId, [
      ...[name, version, input, JSON.stringify(context), Number(cancellable), Math.ceil(lease)],
      ...[entries.length, ...toTexts(entries), ...toTexts(events)],
    ]);
    const [token, result] = reply as readonly [null, SummaryReply] | readonly [string, number];
    if (token === null) return { result: 'exists', saga: withInput(result) };
    return { result: 'created', claimed: toCreated(saga, Number(token), result) };
  }

  /** @throws RedisError if Redis is away, or is full. */
  async write(change: SagaChange): Promise<WriteResult> {
    const { lease, length, entries, inputs, status, reason, cancellable, owned, dueIn, events } = change;
    const reply = await this.#evaluate(scripts.WRITE, lease.sagaId, [
      ...[lease.token, length, inputs, status, reason === undefined ? '' : JSON.stringify(reason)],
      ...[
        reason?.step ?? '',
        Number(cancellable),
        Number(owned),
        dueIn === undefined ? '' : Math.ceil(dueIn),
      ],
      ...[entries.length, ...toTexts(entries), ...toTexts(events)],
    ]);
    const [result, now, unread] = reply as [WriteResult['result'], number, string[]];
    if (result === 'lost') return { result };
    if (result === 'written') return { result, now };
    return { result, now, inputs: unread.map((input) => JSON.parse(input)) };
  }

  async claim(sagas: SagaVersions, limit: number, lease: number): Promise<ClaimedSaga[]> {
    if (sagas.length === 0) return [];
    const definitions = sagas.flatMap(({ name, version }) => [version, name]);
    const found = await Promise.all(
      (await this.#all()).map((bucket) =>
        this.#connection.evaluate(scripts.FIND_DUE, [bucket], [limit, ...definitions]),
      ),
    );
    const due = (found as Due[][]).flat().sort(([, , , one], [, , , other]) => Number(one) - Number(other));
    return collectClaims(await Promise.allSettled(due.slice(0, limit).map((one) => this.#claim(one, lease))));
  }

  async renew(leases: readonly SagaLease[], lease: number): Promise<ReadonlyMap<string, number>> {
    const held = new Map<string, number>();
    await this.#byBucket(
      leases,
      ({ sagaId }) => sagaId,
      async (bucket, some) => {
        const args = [Math.ceil(lease), ...some.flatMap(({ sagaId, token }) => [sagaId, token])];
        const inputs = (await this.#connection.evaluate(scripts.RENEW, [bucket], args)) as number[];
        for (const [index, { sagaId }] of some.entries()) {
          if (inputs[index]! >= 0) held.set(sagaId, inputs[index]!);
        }
      },
    );
    return held;
  }

  /** @throws RedisError if Redis is away, or is full. */
  async send(sagaId: string, input: SagaInput, condition: InputCondition): Promise<SendResult> {
    const step = 'step' in input ? input.step : '';
    const args = [input.id, step, JSON.stringify(input), condition, maxInputs(condition)];
    return (await this.#evaluate(scripts.SEND, sagaId, args)) as SendResult;
  }

  async get(sagaId: string): Promise<StoredSaga | undefined> {
    const reply = (await this.#evaluate(scripts.READ, sagaId, [])) as SagaReply | null;
    return reply === null ? undefined : toSaga(reply);
  }

  async summaries(sagaIds: readonly string[]): Promise<SagaSummary[]> {
    const found: SagaSummary[] = [];
    await this.#byBucket(
      sagaIds,
      (sagaId) => sagaId,
      async (bucket, some) => {
        const replies = await this.#connection.evaluate(scripts.SUMMARIZE, [bucket], some);
        found.push(...(replies as SummaryReply[]).map(toSummary));
      },
    );
    return found;
  }

  async *list(options: ListOptions): AsyncGenerator<SummaryWithInput, void, undefined> {
    yield* listSagas(this.#connection, await this.#all(), options);
  }

  /** @throws the first error of `publish`, once all sagas were taken care of. */
  async publishEvents(publish: PublishEvents): Promise<number> {
    return publishKept(this.#connection, await this.#all(), publish);
  }

  async removeEnded(retention: number): Promise<number> {
    let removed = 0;
    for (const bucket of await this.#all()) {
      let batch: number;
      do {
        const limit = Math.min(REMOVED_AT_ONCE, MAX_REMOVED - removed);
        const args = [Math.floor(retention), limit];
        batch = (await this.#connection.evaluate(scripts.REMOVE_ENDED, [bucket], args)) as number;
        removed += batch;
      } while (batch === REMOVED_AT_ONCE && removed < MAX_REMOVED);
    }
    return removed;
  }

  /** Waits for the commands under way. A second call does nothing. */
  close(): Promise<void> {
    return this.#connection.close();
  }

  async #claim([sagaId, version, name]: Due, lease: number): Promise<ClaimedSaga | undefined> {
    const reply = await this.#evaluate(scripts.CLAIM, sagaId, [version, name, Math.ceil(lease)]);
    if (reply === null) return undefined;
    const [token, takeover, now, saga] = reply as [string, number, number, SagaReply?];
    try {
      if (saga === undefined) throw new SagaUnreadableError(sagaId);
      return {
        lease: { sagaId, token: Number(token) },
        saga: toSaga(saga),
        now,
        takeover: takeover === 1,
      };
    } catch (error) {
      if (!(error instanceof SagaUnreadableError)) throw error;
      const reason = JSON.stringify({ error: describeError(error) });
      await this.#evaluate(scripts.STICK, sagaId, [version, name, token, reason]);
      return undefined;
    }
  }

  async #evaluate(script: Script, sagaId: string, args: readonly (string | number)[]): Promise<unknown> {
    const buckets = await this.#all();
    const bucket = buckets[partitionOf(sagaId, buckets.length)]!;
    return this.#connection.evaluate(script, [bucket], [sagaId, ...args]);
  }

  async #byBucket<T>(
    items: readonly T[],
    idOf: (item: T) => string,
    run: (bucket: string, items: readonly T[]) => Promise<void>,
  ): Promise<void> {
    const buckets = await this.#all();
    const groups = groupBy(items, (item) => buckets[partitionOf(idOf(item), buckets.length)]!);
    await Promise.all(Array.from(groups, ([bucket, some]) => run(bucket, some)));
  }

  /** Names all buckets. The first saga to be created has Redis keep their number; what reads writes nothing. */
  async #all(creates = false): Promise<readonly string[]> {
    if (this.#buckets !== undefined) return this.#buckets;
    const { meta } = this.#keys;
    const stored = await this.#connection.run(async (client) => {
      if (creates) await client.hsetnx(meta, 'buckets', BUCKETS);
      return client.hget(meta, 'buckets');
    });
    // There is no saga: they are as empty as any others.
    if (stored === null) return this.#nameBuckets(BUCKETS);
    if (!/^[1-9]\d{0,3}$/.test(stored)) {
      throw new RedisError(`Redis at ${this.#connection.address}: '${meta}' has no number of buckets`);
    }
    if (this.#buckets === undefined) {
      this.#buckets = this.#nameBuckets(Number(stored));
      void warnOfEviction(this.#connection, 'sagas');
    }
    return this.#buckets;
  }

  #nameBuckets(count: number): readonly string[] {
    return Array.from({ length: count }, (_, number) => this.#keys.bucket(number));
  }
}

function toTexts(items: readonly unknown[]): string[] {
  return items.map((item) => JSON.stringify(item));
}
