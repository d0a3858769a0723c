import { InvalidEventError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { checkEvent, invalid } from './check-event.ts';
import type { DomainEvent } from './domain-event.ts';

/**
 * An event in the JSON format of CloudEvents 1.0. `subject` and `partitionkey` are the aggregate;
 * the other fields that CloudEvents does not have are extension attributes.
 */
export interface CloudEvent<Data = unknown> {
  readonly specversion: '1.0';
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly time: string;
  readonly datacontenttype: 'application/json';
  readonly data: Data;
  readonly partitionkey: string;
  readonly schemaversion: number;
  readonly correlationid: string;
  readonly causationid?: string | undefined;
  /** The metadata as JSON that cannot be extension attributes by themselves. */
  readonly metadata?: string | undefined;
  /** Any other metadata with a name of lower-case letters and digits, such as `traceparent`. */
  readonly [extension: string]: unknown;
}

/** Attributes with a meaning of their own: no field of the metadata becomes one of them. */
const OWN_ATTRIBUTES: ReadonlySet<string> = new Set([
  ...['specversion', 'id', 'source', 'type', 'subject', 'time', 'datacontenttype', 'dataschema', 'data'],
  ...['partitionkey', 'schemaversion', 'correlationid', 'causationid', 'metadata'],
  // Version 0.3 has these, and parsers that read both know them.
  ...['schemaurl', 'datacontentencoding'],
]);

/**
 * Gives an event in the JSON format of CloudEvents 1.0. Source: CloudEvents, 'JSON Event Format', 1.0.2.
 *
 * @throws InvalidEventError if it is given no event
 */
export function toCloudEvent<Data>(event: DomainEvent<Data>): CloudEvent<Data> {
  if (typeof event !== 'object' || event === null) {
    throw new InvalidEventError(`an event must be an object; got ${shown(event)}`);
  }
  checkEvent(event);
  const { correlationId, causationId, ...others } = event.metadata;
  const fields = Object.entries(others).filter(([, value]) => value !== undefined);
  const rest = fields.filter((field) => !isExtension(field));
  return {
    ...Object.fromEntries(fields.filter(isExtension)),
    specversion: '1.0',
    id: event.eventId,
    source: encodeSource(event.source),
    type: event.eventType,
    subject: event.aggregateId,
    time: new Date(event.timestamp).toISOString(),
    datacontenttype: 'application/json',
    data: event.data,
    partitionkey: event.aggregateId,
    schemaversion: event.version,
    correlationid: correlationId,
    ...(causationId === undefined ? {} : { causationid: causationId }),
    ...(rest.length === 0 ? {} : { metadata: JSON.stringify(Object.fromEntries(rest)) }),
  };
}

/**
 * Gives the event of a CloudEvent, which may come from another system: the version is 1 unless
 * `schemaversion` says another one, the correlation id is the id of the event unless it has one, the
 * aggregate is `subject`, or `partitionkey` where there is none, and attributes that an event has no field for are in its metadata.
 *
 * @throws InvalidEventError that says what is not as it must be
 */
export function fromCloudEvent(given: unknown): DomainEvent {
  if (typeof given !== 'object' || given === null) {
    throw new InvalidEventError(`a CloudEvent must be an object; got ${shown(given)}`);
  }
  const fields = given as Record<string, unknown>;
  const fault = findFault(fields);
  if (fault !== undefined) throw invalid({ eventType: fields.type, eventId: fields.id }, fault);
  const aggregateId = fields.subject ?? fields.partitionkey;
  const event = {
    eventType: fields.type,
    aggregateId,
    data: fields.data,
    eventId: fields.id,
    timestamp: isPresent(fields.time) ? Date.parse(fields.time as string) : Date.now(),
    version: fields.schemaversion ?? 1,
    source: decodeSource(fields.source as string),
    metadata: {
      ...Object.fromEntries(
        Object.entries(fields).filter(([name, value]) => isOther(name) && isPresent(value)),
      ),
      ...(isPresent(fields.partitionkey) && fields.partitionkey !== aggregateId
        ? { partitionkey: fields.partitionkey }
        : {}),
      ...parseMetadata(fields.metadata),
      correlationId: fields.correlationid ?? fields.id,
      ...(isPresent(fields.causationid) ? { causationId: fields.causationid } : {}),
    },
  } as DomainEvent;
  checkEvent(event);
  return event;
}

function findFault({
  specversion,
  data_base64: binary,
  ...fields
}: Record<string, unknown>): string | undefined {
  const { source, datacontenttype, time, metadata } = fields;
  if (specversion !== '1.0') return `specversion must be 1.0; got ${shown(specversion)}`;
  if (isPresent(binary)) return 'data_base64 is binary: only JSON can be read';
  if (typeof source !== 'string') return 'source is missing';
  if (isPresent(datacontenttype) && !isMatch(datacontenttype, JSON_TYPE)) {
    return `datacontenttype must be JSON; got ${shown(datacontenttype)}`;
  }
  if (isPresent(time) && !(isMatch(time, TIME) && !Number.isNaN(Date.parse(time)))) {
    return `time must be as RFC 3339 has it; got ${shown(time)}`;
  }
  return parseMetadata(metadata) === undefined
    ? 'the extension metadata must be an object as JSON'
    : undefined;
}

/** RFC 6838, section 4.2, and RFC 8259. */
const JSON_TYPE = /^[\w!#$&^.+-]+\/([\w!#$&^.+-]+\+)?json[ \t]*(;|$)/i;
/** RFC 3339, section 5.6. */
const TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

function isMatch(value: unknown, form: RegExp): value is string {
  return typeof value === 'string' && form.test(value);
}

/** Attributes that are null count as left out. */
function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** CloudEvents, sections 'Naming conventions' and 'Type system'. */
function isExtension([name, value]: readonly [string, unknown]): boolean {
  if (!isOther(name) || !/^[a-z\d]{1,20}$/.test(name)) return false;
  if (typeof value === 'number') return Number.isInteger(value) && Math.abs(value) < 2 ** 31;
  return typeof value === 'boolean' || isMatch(value, /^[^\p{Cc}\p{Cs}]+$/u);
}

function isOther(attribute: string): boolean {
  return !OWN_ATTRIBUTES.has(attribute) && attribute !== 'data_base64';
}

function parseMetadata(json: unknown): object | undefined {
  if (!isPresent(json)) return {};
  try {
    const metadata: unknown = JSON.parse(json as string);
    if (typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata)) return metadata;
  } catch {
    // Another system may mean something else by this name.
  }
  return undefined;
}

/**
 * A reference of RFC 3986: with a scheme, or without a colon in its first part. The names of services
 * are such, unless they have a colon.
 */
const URI_REFERENCE =
  /^([a-z][a-z\d+.-]*:|(?![^/?#]*:))([\w.~:/?@!$&'()*+,;=-]|%[\da-f]{2})+(#([\w.~:/?@!$&'()*+,;=-]|%[\da-f]{2})*)?$/i;

/** A source is a URI reference in CloudEvents: one of another form is encoded. */
function encodeSource(source: string): string {
  return URI_REFERENCE.test(source) ? source : encodeURIComponent(source);
}

/** Decodes what `encodeSource` has encoded, and nothing else. */
function decodeSource(source: string): string {
  try {
    const decoded = decodeURIComponent(source);
    return encodeSource(decoded) === source ? decoded : source;
  } catch {
    return source;
  }
}
