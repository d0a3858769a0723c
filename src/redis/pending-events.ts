import type { DeliveryState } from '../events/delivery.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { EventCodec } from '../events/event-codec.ts';
import { parseState } from './delivery-state.ts';
import { isBefore } from './event-scan.ts';
import type { GroupPartition } from './group-partition.ts';
import type { RedisConnection } from './redis-connection.ts';

/** The fields of a hash to aim at in one reply. */
const PAGE = 100;

/** An event that a group was given and that is not done. */
export interface PendingEvent {
  readonly event: DomainEvent;
  readonly state: DeliveryState;
}

/** The events of groups that have failed, or wait for a process that knows their version. */
export class PendingEvents {
  readonly #connection: RedisConnection;
  readonly #codec: EventCodec;

  constructor(connection: RedisConnection, codec: EventCodec) {
    this.#connection = connection;
    this.#codec = codec;
  }

  /** Lists those of a group in one partition, in the order of their publication. */
  async *list(partition: GroupPartition): AsyncGenerator<PendingEvent, void, undefined> {
    const states = await this.#readStates(partition);
    const ids = [...states.keys()].toSorted((one, other) => (isBefore(one, other) ? -1 : 1));
    for (const id of ids) {
      const event = await this.#readEvent(partition, id);
      if (event !== undefined) yield { event, state: states.get(id)! };
    }
  }

  /** Gives how far an entry is that the group was given; undefined if it is done. */
  async stateOf({ keys, group }: GroupPartition, id: string): Promise<DeliveryState | undefined> {
    const [pending, state] = await this.#connection.run((client) =>
      Promise.all([client.xpending(keys.stream, group, id, id, 1), client.hget(keys.attempts, id)]),
    );
    return pending.length > 0 ? parseState(state ?? undefined) : undefined;
  }

  async #readStates({ keys }: GroupPartition): Promise<Map<string, DeliveryState>> {
    const states = new Map<string, DeliveryState>();
    let cursor = '0';
    do {
      const [next, pairs] = await this.#connection.run((client) =>
        client.hscan(keys.attempts, cursor, 'COUNT', PAGE),
      );
      for (let index = 0; index < pairs.length; index += 2) {
        const state = parseState(pairs[index + 1]);
        // An attempt that has only begun may be the first one.
        if (state.attempts > 0 || state.heldSince !== undefined) states.set(pairs[index]!, state);
      }
      cursor = next;
    } while (cursor !== '0');
    return states;
  }

  /** Gives the event; undefined if it is done by now, or is no event. */
  async #readEvent({ keys }: GroupPartition, id: string): Promise<DomainEvent | undefined> {
    const [entry] = await this.#connection.run((client) => client.xrange(keys.stream, id, id));
    const fields = entry?.[1] ?? [];
    const json = fields[fields.indexOf('event') + 1];
    try {
      return json === undefined ? undefined : this.#codec.parse(json);
    } catch {
      return undefined;
    }
  }
}
