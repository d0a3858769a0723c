/** The data of each type of event, by the name of the type. */
export type EventMap = Record<string, unknown>;

/** The circumstances of an event. All fields are passed on as they are. */
export interface EventMetadata {
  /** The same in all that one request or one first event has caused. */
  readonly correlationId: string;
  /** The eventId of the event in whose handler this one was published. */
  readonly causationId?: string | undefined;
  /** W3C Trace Context of the request or event. */
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
  readonly [name: string]: unknown;
}

/** Something that has happened to one aggregate, such as an order. */
export interface DomainEvent<Data = unknown, Type extends string = string> {
  /** Names what has happened, as `topic.name`: `order.created`. */
  readonly eventType: Type;
  /** The aggregate that it has happened to. Events of one aggregate are handled in their order. */
  readonly aggregateId: string;
  readonly data: Data;
  /** A UUID, version 7. */
  readonly eventId: string;
  /** When it happened, in milliseconds since 1970. */
  readonly timestamp: number;
  /** The version of the schema of `data`, from 1 on. */
  readonly version: number;
  /** The service that has published it. */
  readonly source: string;
  readonly metadata: EventMetadata;
}

/** The events of a map, told apart by `eventType`. */
export type EventOf<Events extends EventMap> = {
  [Type in keyof Events & string]: DomainEvent<Events[Type], Type>;
}[keyof Events & string];

/** An event before it is published: what is left out is filled in. */
export type NewEvent<Events extends EventMap = EventMap> = {
  [Type in keyof Events & string]: Pick<
    DomainEvent<Events[Type], Type>,
    'eventType' | 'aggregateId' | 'data'
  > &
    Partial<Pick<DomainEvent, 'eventId' | 'timestamp' | 'version' | 'source'>> & {
      readonly metadata?: Partial<EventMetadata> | undefined;
    };
}[keyof Events & string];

/** The topic of a type: the part before its first dot. */
export type TopicOf<Type extends string> = Type extends `${infer Topic}.${string}` ? Topic : Type;

/** The types of events that a subscription is for: one type, or all of a topic: `order.*`. */
export type EventPattern<Events extends EventMap> =
  | (keyof Events & string)
  | `${TopicOf<keyof Events & string>}.*`;

/** The events of a map that match a pattern. */
export type MatchingEvent<Events extends EventMap, Pattern extends string> = string extends keyof Events
  ? DomainEvent
  : Pattern extends `${infer Topic}.*`
    ? Extract<EventOf<Events>, { eventType: Topic | `${Topic}.${string}` }>
    : Extract<EventOf<Events>, { eventType: Pattern }>;
