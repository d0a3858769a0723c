import { InvalidEventError } from '../errors.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { EventCodec } from '../events/event-codec.ts';

/** Parses the event of an entry: others may write to Redis too, and what they write may be none. */
export type EntryParser = (stream: string, id: string, json: string | undefined) => DomainEvent | undefined;

/** @param onError is told of an entry that is no event, and is passed over */
export function createEntryParser(codec: EventCodec, onError: (error: unknown) => void): EntryParser {
  return (stream, id, json = '') => {
    try {
      return codec.parse(json);
    } catch (cause) {
      onError(
        new InvalidEventError(`the entry ${id} of ${stream} is no event, and is passed over`, { cause }),
      );
      return undefined;
    }
  };
}
