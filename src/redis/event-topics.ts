import { GroupInUseError, PartitionsMismatchError } from '../errors.ts';
import { type EventKeys, groupNameOf } from './event-keys.ts';
import type { StreamPartition } from './event-publisher.ts';
import { GroupPartition } from './group-partition.ts';
import { COUNT_MEMBERS, REMOVE_GROUP } from './group-scripts.ts';
import type { RedisConnection } from './redis-connection.ts';
import { REPORT } from './stream-scripts.ts';

/** How far a group is in one partition. */
export interface GroupReport {
  readonly group: GroupPartition;
  /** Events that the group has not handled. */
  readonly lag: number;
  /** The part of the lag that the group was given. */
  readonly pending: number;
  /** The id of the last entry that it was given. */
  readonly lastGiven: string;
}

/** Knows the topics of a bus in Redis, their partitions and their groups. */
export class EventTopics {
  readonly #connection: RedisConnection;
  readonly #keys: EventKeys;
  readonly #partitions: number;
  readonly #known = new Map<string, { registered: Promise<void>; partitions: readonly StreamPartition[] }>();

  constructor(connection: RedisConnection, keys: EventKeys, partitions: number) {
    this.#connection = connection;
    this.#keys = keys;
    this.#partitions = partitions;
  }

  /**
   * Gives the partitions of a topic, once it is known in Redis that there is the topic.
   *
   * @throws PartitionsMismatchError if the events are stored in another number of partitions
   */
  async open(topic: string): Promise<readonly StreamPartition[]> {
    let known = this.#known.get(topic);
    if (known === undefined) {
      known = { registered: this.register(topic), partitions: this.partitionsOf(topic) };
      this.#known.set(topic, known);
      known.registered.catch(() => this.#known.delete(topic));
    }
    await known.registered;
    return known.partitions;
  }

  /** Tells Redis that there is a topic. To be called again when Redis has lost it. */
  async register(topic: string): Promise<void> {
    const { meta, topics } = this.#keys;
    const [stored, known] = await this.#connection.run((client) =>
      Promise.all([client.hget(meta, 'partitions'), client.sismember(topics, topic)]),
    );
    this.#check(Number(stored ?? (await this.#storePartitions())));
    // A full Redis denies what is known already, too.
    if (known === 0) await this.#connection.run((client) => client.sadd(topics, topic));
  }

  /** Lists the topics that have ever had an event or a group. */
  async list(): Promise<string[]> {
    const { meta, topics } = this.#keys;
    const [stored, names] = await Promise.all([
      this.#connection.run((client) => client.hget(meta, 'partitions')),
      this.#connection.run((client) => client.smembers(topics)),
    ]);
    if (stored !== null) this.#check(Number(stored));
    return names.toSorted();
  }

  partitionsOf(topic: string): StreamPartition[] {
    return Array.from({ length: this.#partitions }, (_, partition) => {
      return { topic, partition, keys: this.#keys.partition(topic, partition) };
    });
  }

  /**
   * Gives the partitions as one group has them.
   *
   * @param group its name and its pattern, as `groupKey` gives it
   */
  groupOf(topic: string, group: string): GroupPartition[] {
    return Array.from({ length: this.#partitions }, (_, partition) =>
      this.#groupPartition(topic, partition, group),
    );
  }

  /** Reports on a group with all its patterns, or on all groups, by partition. */
  async report(group?: string): Promise<GroupReport[]> {
    const partitions = (await this.list()).flatMap((topic) => this.partitionsOf(topic));
    const reports = await Promise.all(partitions.map((partition) => this.#reportOn(partition)));
    return reports.flat().filter((found) => group === undefined || groupNameOf(found.group.group) === group);
  }

  /** Finds the partitions of a group with all its patterns, or of all groups. */
  async find(group?: string): Promise<GroupPartition[]> {
    const reports = await this.report(group);
    return reports.map((report) => report.group);
  }

  /** Counts the subscriptions of a group that are alive. */
  async countMembers({ topic, group }: Pick<GroupPartition, 'topic' | 'group'>): Promise<number> {
    const key = this.#keys.members(topic, group);
    return Number(await this.#connection.evaluate(COUNT_MEMBERS, [key], []));
  }

  /**
   * Forgets a group; gives whether there was one.
   *
   * @throws GroupInUseError if there are subscriptions of the group
   */
  async remove(group: string): Promise<boolean> {
    const found = await this.find(group);
    const byPattern = new Map(found.map((partition) => [partition.group, partition]));
    const counts = await Promise.all(Array.from(byPattern.values(), (one) => this.countMembers(one)));
    if (counts.some((count) => count > 0)) throw new GroupInUseError(group);
    await Promise.all(
      found.map(({ keys: { stream, state, lease, attempts, dead }, group: name }) =>
        this.#connection.evaluate(REMOVE_GROUP, [stream, state, lease, attempts, dead], [name]),
      ),
    );
    return found.length > 0;
  }

  /** Gives the number that is stored: another process may have been first. */
  #storePartitions(): Promise<string | null> {
    const { meta } = this.#keys;
    return this.#connection.run(async (client) => {
      await client.hsetnx(meta, 'partitions', this.#partitions);
      return client.hget(meta, 'partitions');
    });
  }

  async #reportOn({ topic, partition, keys }: StreamPartition): Promise<GroupReport[]> {
    const reply = await this.#connection.evaluate(REPORT, [keys.stream, keys.state], []);
    const [, ...groups] = reply as [number, ...(string | number)[]];
    return Array.from({ length: groups.length / 4 }, (_, index) => {
      const [name, lag, pending, lastGiven] = groups.slice(4 * index) as [string, number, number, string];
      return { group: this.#groupPartition(topic, partition, name), lag, pending, lastGiven };
    });
  }

  #groupPartition(topic: string, partition: number, group: string): GroupPartition {
    const keys = this.#keys.group(topic, partition, group);
    return new GroupPartition(this.#connection, keys, { topic, partition, group });
  }

  #check(stored: number): void {
    if (stored !== this.#partitions) throw new PartitionsMismatchError(this.#partitions, stored);
  }
}
