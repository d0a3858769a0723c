import { EventVersionError, InvalidEventError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { anObject, duration, hasMethods, oneOf } from '../internal/validate.ts';
import { createAttemptError } from './attempt-error.ts';
import { checkEvent, invalid } from './check-event.ts';
import type { DomainEvent, EventMap, EventMetadata, NewEvent } from './domain-event.ts';
import { completeMetadata } from './event-context.ts';
import { checkEventType } from './event-pattern.ts';
import type { EventReader, ReadEvent } from './event-reader.ts';
import { copyJson, isTooDeep } from './json-data.ts';
import { describeIssues, type StandardSchema } from './standard-schema.ts';
import { Upcasters, type UpcastOptions } from './upcasters.ts';
import { uuidV7 } from './uuid-v7.ts';

/** The most bytes of an event as JSON in UTF-8: 1 MiB. */
export const MAX_EVENT_SIZE = 1_048_576;

export interface EventCodecOptions<Events extends EventMap = EventMap> {
  /**
   * Schemas of the data, by type. An event is validated when it is published, and again when it is
   * received: a handler gets what the schema makes of the data.
   */
  schemas?: { readonly [Type in keyof Events & string]?: StandardSchema<Events[Type]> } | undefined;
  /**
   * Functions that make the data of the next version of those of a former one, by type and by the
   * version that they take. The highest of these versions plus one is the current one.
   */
  upcast?: UpcastOptions | undefined;
  /**
   * Decides about an event whose version is newer than this process knows. `hold`: it and the
   * later events of its aggregate wait for a process that knows it, as there is one in a rolling
   * deployment, up to `holdFor`. `dead`: it goes to the dead letters. Default `hold`.
   */
  newerVersion?: 'hold' | 'dead' | undefined;
  /** Milliseconds for which an event of a newer version waits. Default 600,000, ten minutes. */
  holdFor?: number | undefined;
}

const anySchema = (value: unknown, option: string) => {
  anObject(value, option);
  for (const [type, schema] of Object.entries(value as object)) {
    checkEventType(type, `the key ${shown(type)} of ${option}`);
    hasMethods('validate')(
      (schema as StandardSchema | undefined)?.['~standard'],
      `${option}['${type}']['~standard']`,
    );
  }
};

/** Checks of the options of a codec, which are those of the buses and stores that have one. */
export const CODEC_CHECKS = {
  schemas: anySchema,
  upcast: anObject,
  newerVersion: oneOf('hold', 'dead'),
  holdFor: duration,
};

const NEW_EVENT_FIELDS: ReadonlySet<string> = new Set([
  'eventType',
  'aggregateId',
  'data',
  'eventId',
  'timestamp',
  'version',
  'source',
  'metadata',
]);

/** Makes events of what a user publishes, and of what was stored what a handler gets. */
export class EventCodec implements EventReader {
  readonly holdFor: number;
  readonly #source: string;
  readonly #schemas: ReadonlyMap<string, StandardSchema>;
  readonly #upcasters: Upcasters;
  readonly #newerVersion: 'hold' | 'dead';

  /** @param owner the class whose options they are, for errors */
  constructor(owner: string, source: string, options: EventCodecOptions) {
    const { schemas = {}, upcast = {}, newerVersion = 'hold', holdFor = 600_000 } = options;
    this.holdFor = holdFor;
    this.#source = source;
    this.#schemas = new Map(Object.entries(schemas) as [string, StandardSchema][]);
    this.#upcasters = new Upcasters(upcast, `${owner} option 'upcast'`);
    this.#newerVersion = newerVersion;
  }

  /**
   * Completes a new event, and validates it. The event has a copy of the data as they are now.
   *
   * @throws InvalidEventError that says which field is not what it must be
   */
  async create(given: NewEvent): Promise<DomainEvent> {
    const event = this.complete(given);
    await this.validate(event);
    return event;
  }

  /**
   * Has the schema of its type validate an event, if it has the current version.
   *
   * @returns undefined if there is nothing to wait for. The promise rejects with an InvalidEventError.
   */
  validate(event: DomainEvent): Promise<unknown> | undefined {
    const { eventType, version, data } = event;
    if (!this.#schemas.has(eventType) || version !== this.#upcasters.currentVersion(eventType)) {
      return undefined;
    }
    return this.#validate(event, data);
  }

  /**
   * Gives an event as JSON.
   *
   * @throws InvalidEventError if it is too large
   */
  serialize(event: DomainEvent): string {
    const json = JSON.stringify(event);
    // A character has at most three bytes.
    if (json.length > MAX_EVENT_SIZE / 3 && Buffer.byteLength(json) > MAX_EVENT_SIZE) {
      const size = `${Buffer.byteLength(json)} bytes as JSON`;
      throw invalid(
        event,
        `it has ${size}, and may have ${MAX_EVENT_SIZE}: store the data elsewhere, and publish where`,
      );
    }
    return json;
  }

  /**
   * Parses a stored event. Whoever can write to the store may have written it.
   *
   * @throws InvalidEventError if it is no event
   */
  parse(json: string): DomainEvent {
    if (json.length > MAX_EVENT_SIZE)
      throw new InvalidEventError(`a stored event has more than ${MAX_EVENT_SIZE} bytes`);
    let event: Partial<DomainEvent> | null;
    try {
      event = JSON.parse(json);
    } catch (cause) {
      throw new InvalidEventError('a stored event is no JSON', { cause });
    }
    if (typeof event !== 'object' || event === null)
      throw new InvalidEventError('a stored event is no object');
    checkEvent(event as DomainEvent);
    // The event itself is no level of its data.
    if (isTooDeep(event, -1)) throw invalid(event, 'it has too many levels of objects in each other');
    return event as DomainEvent;
  }

  read(stored: DomainEvent): ReadEvent | Promise<ReadEvent> {
    const { eventType, version } = stored;
    const current = this.#upcasters.currentVersion(eventType);
    if (version > current) {
      const message = `version ${version} of '${eventType}' is newer than ${current}, the one that this process knows`;
      const error = new EventVersionError(message, { eventType, eventId: stored.eventId });
      return { kind: this.#newerVersion === 'hold' ? 'hold' : 'invalid', error };
    }
    if (version === current && !this.#schemas.has(eventType)) return { kind: 'event', event: stored };
    return this.#readChanged(stored, current);
  }

  async #readChanged(stored: DomainEvent, current: number): Promise<ReadEvent> {
    try {
      const data = await this.#validate(stored, this.#upcasters.upcast(stored));
      return { kind: 'event', event: { ...stored, data, version: current } };
    } catch (error) {
      return { kind: 'invalid', error: error as InvalidEventError };
    }
  }

  /**
   * Completes a new event, which has a copy of the data as they are now.
   *
   * @throws InvalidEventError that says which field is not what it must be
   */
  complete(given: NewEvent): DomainEvent {
    if (typeof given !== 'object' || given === null) {
      throw new InvalidEventError(`an event must be an object; got ${shown(given)}`);
    }
    const unknown = Object.keys(given).find((field) => !NEW_EVENT_FIELDS.has(field));
    if (unknown !== undefined) {
      throw invalid(
        given,
        `it has no field ${shown(unknown)}; its fields are ${[...NEW_EVENT_FIELDS].join(', ')}`,
      );
    }
    if (given.metadata !== undefined) checkMetadata(given);
    const eventId = given.eventId ?? uuidV7();
    const metadata = completeMetadata(given.metadata ?? {}, eventId);
    const event: DomainEvent = {
      eventType: given.eventType,
      aggregateId: given.aggregateId,
      data: copyField(given, 'data', given.data),
      eventId,
      timestamp: given.timestamp ?? Date.now(),
      version: given.version ?? this.#upcasters.currentVersion(given.eventType),
      source: given.source ?? this.#source,
      metadata: Object.freeze(copyField(given, 'metadata', metadata)) as EventMetadata,
    };
    checkEvent(event);
    if (event.version > this.#upcasters.currentVersion(event.eventType)) {
      throw invalid(
        event,
        `version ${event.version} is not known here: the option 'upcast' tells the versions`,
      );
    }
    return Object.freeze(event);
  }

  /**
   * Gives the data as the schema of the type makes it.
   *
   * @throws InvalidEventError if the schema rejects them, or fails
   */
  async #validate(event: DomainEvent, data: unknown): Promise<unknown> {
    const schema = this.#schemas.get(event.eventType);
    if (schema === undefined) return data;
    let issues: string;
    try {
      const result = await schema['~standard'].validate(data);
      if (result.issues === undefined) return result.value;
      issues = describeIssues(result.issues);
    } catch (cause) {
      throw invalid(event, `its schema failed: ${createAttemptError(cause, 1).message}`, cause);
    }
    throw invalid(event, issues);
  }
}

function checkMetadata(event: NewEvent): void {
  try {
    anObject(event.metadata, 'metadata');
  } catch (cause) {
    throw invalid(event, (cause as TypeError).message, cause);
  }
}

/** Copies a field of an event as JSON keeps it. */
function copyField(event: NewEvent, name: string, value: unknown): unknown {
  if (value === undefined) return undefined;
  try {
    return copyJson(value, name);
  } catch (cause) {
    // A getter or a Proxy of the user may throw whatever it likes.
    throw invalid(event, cause instanceof Error ? cause.message : `${name} cannot be read`, cause);
  }
}
