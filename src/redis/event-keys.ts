/** The keys of one partition of a topic, all in one hash slot. */
export interface PartitionKeys {
  readonly stream: string;
  readonly state: string;
  /** The channel on which it is told that events were added. */
  readonly added: string;
}

/** The keys of a group in one partition, in the slot of the partition. */
export interface GroupKeys extends PartitionKeys {
  readonly lease: string;
  readonly attempts: string;
  readonly dead: string;
}

/** Names the keys of the event bus. */
export class EventKeys {
  readonly meta: string;
  readonly topics: string;
  readonly #prefix: string;

  constructor(keyPrefix: string) {
    this.#prefix = `${keyPrefix}:events`;
    this.meta = `${this.#prefix}:meta`;
    this.topics = `${this.#prefix}:topics`;
  }

  partition(topic: string, partition: number): PartitionKeys {
    const stream = `${this.#prefix}:{${topic}:${partition}}`;
    return { stream, state: `${stream}:state`, added: `${stream}:added` };
  }

  /** @param group the name of the group and its pattern, as `groupKey` gives it */
  group(topic: string, partition: number, group: string): GroupKeys {
    const keys = this.partition(topic, partition);
    const { stream } = keys;
    return {
      ...keys,
      lease: `${stream}:lease:${group}`,
      attempts: `${stream}:attempts:${group}`,
      dead: `${stream}:dead:${group}`,
    };
  }

  /** The key of the members of a group, and the channel on which it is told that they change. */
  members(topic: string, group: string): string {
    return `${this.#prefix}:{${topic}}:members:${group}`;
  }
}

/** Gives the name of the group of a `groupKey`. */
export function groupNameOf(key: string): string {
  const [name] = key.split('/', 1) as [string];
  return name;
}

/** Gives the pattern of a `groupKey`. */
export function patternOf(key: string): string {
  return key.slice(groupNameOf(key).length + 1);
}
