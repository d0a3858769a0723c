import type { GroupKeys } from './event-keys.ts';
import { ACQUIRE, CREATE_GROUP, READ, READ_LEASE, RELEASE, RENEW, SETTLE } from './group-scripts.ts';
import type { RedisConnection, Script } from './redis-connection.ts';

/** The lease of a partition. */
export interface Acquired {
  readonly token: string;
  /** Whether the owner before gave the partition back, rather than that its lease ran out. */
  readonly clean: boolean;
  /** Whether the group was not there any more. */
  readonly created: boolean;
}

/** Names the owner of a partition. */
export interface Lease {
  /** The id of a subscription. */
  readonly owner: string;
  /** Milliseconds until the lease runs out, unless it is renewed. */
  readonly expiresIn: number;
}

/** The events that a group reads in a partition at once. */
export interface ReadBatch {
  /** Whether the events were given before: to an owner before, or in a reply that was lost. */
  readonly again: boolean;
  /** Whether there was no more to read, of those that were given before or at all. */
  readonly exhausted: boolean;
  readonly ids: readonly string[];
  /** The JSON of each event. */
  readonly events: readonly string[];
  /** The group of each event that is for one group only, by id. */
  readonly groups: ReadonlyMap<string, string>;
  /** How far the attempts are, as JSON, of each event that has failed before, by id. */
  readonly states: ReadonlyMap<string, string>;
}

/** The ends and the failed attempts of events, to be written at once. */
export interface SettledBatch {
  readonly done: readonly string[];
  /** The ids and attempts of events that will be handled again, one after the other. */
  readonly saved: readonly string[];
  /** The ids and attempts of events for the dead letters, one after the other. */
  readonly dead: readonly string[];
}

/** Calls the scripts of one group in one partition. Each call rejects with a RedisError if it fails. */
export class GroupPartition {
  readonly topic: string;
  readonly partition: number;
  /** The name of the group and its pattern, as `groupKey` gives it. */
  readonly group: string;
  readonly keys: GroupKeys;
  readonly #connection: RedisConnection;

  constructor(
    connection: RedisConnection,
    keys: GroupKeys,
    { topic, partition, group }: { topic: string; partition: number; group: string },
  ) {
    this.#connection = connection;
    this.keys = keys;
    this.topic = topic;
    this.partition = partition;
    this.group = group;
  }

  /** Creates the group unless it is there. */
  async create(from: 'start' | 'now'): Promise<void> {
    const { stream, state } = this.keys;
    await this.#evaluate(CREATE_GROUP, [stream, state], [this.group, from]);
  }

  /** Gives the lease, or in how many milliseconds the lease of another owner runs out. */
  async acquire(owner: string, lease: number): Promise<Acquired | number> {
    const { stream, state, lease: key } = this.keys;
    const reply = await this.#evaluate(ACQUIRE, [stream, state, key], [this.group, owner, lease]);
    const [token, rest, created] = reply as [string, number, number];
    return token === '' ? rest : { token, clean: rest === 1, created: created === 1 };
  }

  /**
   * Extends the lease, and drops events that no group needs. Gives the id of the first entry that was
   * given and is not done, '' for none; undefined if the token is old.
   */
  async renew(token: string, lease: number, retention: number): Promise<string | undefined> {
    const { stream, lease: key } = this.keys;
    const reply = await this.#evaluate(RENEW, [stream, key], [this.group, token, lease, retention]);
    return (reply as string | null) ?? undefined;
  }

  /** @param channel where to tell that the partition is free */
  async release(token: string, channel: string): Promise<void> {
    await this.#evaluate(RELEASE, [this.keys.lease], [token, channel]);
  }

  /** Gives the owner of the partition; undefined if there is none. */
  async readLease(): Promise<Lease | undefined> {
    const reply = await this.#evaluate(READ_LEASE, [this.keys.lease], []);
    if (reply === null) return undefined;
    const [owner, expiresIn] = reply as [string, number];
    return { owner, expiresIn };
  }

  /**
   * Reads events after the last entry that the owner has; undefined if the token is old. Those come
   * first that were given before and are not done.
   */
  async read(token: string, count: number, last: string): Promise<ReadBatch | undefined> {
    const { stream, state, lease, attempts } = this.keys;
    const keys = [stream, state, lease, attempts];
    const reply = await this.#evaluate(READ, keys, [this.group, token, count, last]);
    if (reply === null) return undefined;
    const [again, exhausted, ids, events, ...pairs] = reply as [
      number,
      number,
      string,
      string,
      string[],
      string[],
    ];
    return {
      again: again === 1,
      exhausted: exhausted === 1,
      ids: ids === '' ? [] : ids.split(' '),
      events: events.split('\n'),
      groups: toMap(pairs[0]),
      states: toMap(pairs[1]),
    };
  }

  /** Writes what became of events. False if the token is old. */
  async settle(token: string, { done, saved, dead }: SettledBatch): Promise<boolean> {
    const { stream, lease, attempts, dead: letters } = this.keys;
    const args = [this.group, token, done.join(' '), saved.length / 2, ...saved, ...dead];
    return (await this.#evaluate(SETTLE, [stream, lease, attempts, letters], args)) === 1;
  }

  #evaluate(script: Script, keys: string[], args: (string | number)[]): Promise<unknown> {
    return this.#connection.evaluate(script, keys, args);
  }
}

const EMPTY: ReadonlyMap<string, string> = new Map();

function toMap(pairs: readonly string[]): ReadonlyMap<string, string> {
  if (pairs.length === 0) return EMPTY;
  const map = new Map<string, string>();
  for (let index = 0; index < pairs.length; index += 2) map.set(pairs[index]!, pairs[index + 1]!);
  return map;
}
