import { randomUUID } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { InvalidInstanceError } from '../errors.ts';
import { nearestName } from '../internal/near-name.ts';
import { shown } from '../internal/shown.ts';
import { anObject } from '../internal/validate.ts';
import { isUnspecified } from './local-host.ts';

/** One running copy of a service. Immutable. */
export interface ServiceInstance {
  readonly serviceName: string;
  readonly instanceId: string;
  /** A host name or an IP address, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  readonly protocol: 'http' | 'https';
  /** A path on the instance, or a URL of it. */
  readonly healthCheckUrl?: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * The share of the calls relative to the weights of the other instances. 0 for no calls while
   * there are others.
   */
  readonly weight: number;
  readonly zone?: string | undefined;
  readonly status: 'healthy' | 'unhealthy' | 'unknown';
  /**
   * Epoch milliseconds. Another value than before tells that another process runs under the id of
   * the instance.
   */
  readonly registeredAt: number;
  /** Epoch milliseconds, to be shown: nothing is decided by it. */
  readonly lastHeartbeat: number;
}

/** The fields that a registration needs; the others are filled in. */
export type InstanceRegistration = Pick<ServiceInstance, 'serviceName' | 'host' | 'port'> &
  Partial<ServiceInstance>;

/**
 * The fields of a registered instance that may change. A field that is left out stays; metadata
 * change as a whole.
 */
export type InstanceChanges = Partial<Pick<ServiceInstance, 'weight' | 'metadata' | 'status'>>;

const NAME = /^[A-Za-z\d][\w.:-]{0,127}$/;
/** One label of a host as URLs give it. */
const SERVICE_HOST = /^[a-z\d][a-z\d_-]{0,127}$/;
const HOST = /^(?=.{1,253}$)[A-Za-z\d_](?:[\w-]{0,62})(?:\.[A-Za-z\d_][\w-]{0,62})*\.?$/;
const MAX_METADATA = 64;
const MAX_WEIGHT = 1_000_000;
const CHANGEABLE = ['weight', 'metadata', 'status'];

const FIELDS: readonly (keyof ServiceInstance)[] = [
  'serviceName',
  'instanceId',
  'host',
  'port',
  'protocol',
  'healthCheckUrl',
  'metadata',
  'weight',
  'zone',
  'status',
  'registeredAt',
  'lastHeartbeat',
];

/**
 * Checks and fills in a registration that this process makes, as `toInstance` does. An unknown
 * field is an error here, since it may be misspelled; a registration that is read may have one from
 * a newer version. So is the address of no host, on which servers listen.
 *
 * @throws InvalidInstanceError naming the field.
 */
export function toRegisteredInstance(registration: InstanceRegistration): ServiceInstance {
  checkFields(registration);
  const instance = toInstance(registration);
  check(
    'host',
    !isUnspecified(instance.host),
    'one that callers reach, not the address to listen on: the IP address or name of this machine, pod or container',
    instance.host,
  );
  return instance;
}

/**
 * Checks that a registration has no unknown field.
 *
 * @throws InvalidInstanceError naming the field.
 */
export function checkFields(registration: object): void {
  if (typeof registration !== 'object' || registration === null) return;
  for (const field of Object.keys(registration)) {
    if ((FIELDS as readonly string[]).includes(field)) continue;
    const meant = nearestName(field, FIELDS);
    const hint = meant === undefined ? `its fields are ${FIELDS.join(', ')}` : `did you mean '${meant}'?`;
    throw new InvalidInstanceError(`an instance has no field ${shown(field)}: ${hint}`);
  }
}

/**
 * Checks a registration, which may come from anybody, and fills it in: an id (a UUID), `http`,
 * weight 1, no metadata, `healthy`.
 *
 * @throws InvalidInstanceError naming the field that is not what it must be.
 */
export function toInstance(registration: InstanceRegistration): ServiceInstance {
  checkObject(registration, 'an instance');
  const now = Date.now();
  const host = parseHost(registration.host);
  const { serviceName, instanceId = randomUUID(), port, protocol = 'http', weight = 1, zone } = registration;
  const { healthCheckUrl, metadata = {}, status = 'healthy' } = registration;
  const { registeredAt = now, lastHeartbeat = now } = registration;
  check('serviceName', isName(serviceName), 'letters, digits and . _ : - (at most 128)', serviceName);
  check('instanceId', isName(instanceId), 'letters, digits and . _ : - (at most 128)', instanceId);
  check(
    'port',
    Number.isInteger(port) && port >= 1 && port <= 65_535,
    'a whole number from 1 to 65535',
    port,
  );
  check('protocol', protocol === 'http' || protocol === 'https', "'http' or 'https'", protocol);
  check(
    'weight',
    typeof weight === 'number' && weight >= 0 && weight <= MAX_WEIGHT,
    `a number from 0 to ${MAX_WEIGHT}`,
    weight,
  );
  check('zone', zone === undefined || isName(zone), 'letters, digits and . _ : - (at most 128)', zone);
  checkStatus(status);
  check('registeredAt', Number.isFinite(registeredAt), 'epoch milliseconds', registeredAt);
  check('lastHeartbeat', Number.isFinite(lastHeartbeat), 'epoch milliseconds', lastHeartbeat);
  const instance: ServiceInstance = {
    serviceName,
    instanceId,
    host,
    port,
    protocol,
    healthCheckUrl,
    metadata: parseMetadata(metadata),
    weight,
    zone,
    status,
    registeredAt,
    lastHeartbeat,
  };
  check(
    'healthCheckUrl',
    healthCheckUrl === undefined || urlOn(instance, healthCheckUrl) !== undefined,
    'a path, or a URL of the instance itself',
    healthCheckUrl,
  );
  return Object.freeze(instance);
}

/**
 * Checks the changes of an instance.
 *
 * @throws InvalidInstanceError if they are no object, or name a field that may not change.
 */
export function checkChanges(changes: InstanceChanges): void {
  checkObject(changes, 'the changes of an instance');
  for (const field of Object.keys(changes)) {
    if (!CHANGEABLE.includes(field)) {
      throw new InvalidInstanceError(
        `the field ${shown(field)} of an instance cannot be changed, only its ${CHANGEABLE.join(', ')}: register it again`,
      );
    }
  }
}

/**
 * The instance with the changes.
 *
 * @throws InvalidInstanceError naming the field that is not what it must be, or may not change.
 */
export function withChanges(instance: ServiceInstance, changes: InstanceChanges): ServiceInstance {
  checkChanges(changes);
  const { weight = instance.weight, metadata = instance.metadata, status = instance.status } = changes;
  return toInstance({ ...instance, weight, metadata, status });
}

/** Gives `http://host:port`, with an IPv6 address in brackets. */
export function originOf({
  protocol,
  host,
  port,
}: Pick<ServiceInstance, 'protocol' | 'host' | 'port'>): string {
  return `${protocol}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/**
 * Resolves a path or a URL on the instance. Gives undefined if it is malformed, or leads anywhere
 * else.
 */
export function urlOn(
  instance: Pick<ServiceInstance, 'protocol' | 'host' | 'port'>,
  url: unknown,
): URL | undefined {
  // A backslash separates host and path for some parsers, and not for others.
  if (typeof url !== 'string' || url.length > 2048 || /[^\x21-\x7e]|\\/.test(url)) return undefined;
  const base = originOf(instance);
  if (!URL.canParse(url, base)) return undefined;
  const parsed = new URL(url, base);
  const own =
    parsed.protocol === `${instance.protocol}:` &&
    parsed.host === new URL(base).host &&
    parsed.username === '' &&
    parsed.password === '';
  return own ? parsed : undefined;
}

/** Tells whether two descriptions are the same but for the time of the last heartbeat. */
export function sameInstance(one: ServiceInstance, other: ServiceInstance): boolean {
  return describe(one) === describe(other);
}

function describe({ lastHeartbeat: _, ...rest }: ServiceInstance): string {
  return JSON.stringify(rest);
}

/** Tells whether this version knows the status. */
export function isStatus(status: unknown): status is ServiceInstance['status'] {
  return status === 'healthy' || status === 'unhealthy' || status === 'unknown';
}

/**
 * Checks that the value is a status.
 *
 * @throws InvalidInstanceError
 */
export function checkStatus(status: unknown): void {
  check('status', isStatus(status), "'healthy', 'unhealthy' or 'unknown'", status);
}

function check(field: string, valid: boolean, expected: string, value: unknown): void {
  if (valid) return;
  throw new InvalidInstanceError(`the ${field} of an instance must be ${expected}; got ${shown(value)}`);
}

function checkObject(value: unknown, what: string): void {
  try {
    anObject(value, what);
  } catch (cause) {
    throw new InvalidInstanceError((cause as Error).message, { cause });
  }
}

/**
 * Tells whether the value can be the id of an instance, a zone, or the name of a service as a
 * registry may have it.
 */
export function isName(value: unknown): boolean {
  return typeof value === 'string' && NAME.test(value);
}

/** Tells whether a host, as URLs give it, can be the name of a service. */
export function isServiceHost(hostname: string): boolean {
  return SERVICE_HOST.test(hostname) && hostname !== 'localhost';
}

/**
 * Checks a name under which a service is to be registered: `http://name/` has to mean that service
 * and nothing else. URLs lower-case the host and take a number for an address, and a name with a
 * dot may be any host outside the mesh. A registry may have other names, which an older version let
 * be registered; such services can still be called.
 *
 * @throws InvalidInstanceError
 */
export function checkServiceName(name: string): void {
  const valid =
    isServiceHost(name) && URL.canParse(`http://${name}`) && new URL(`http://${name}`).host === name;
  check(
    'serviceName',
    valid,
    "one that http://serviceName/ can mean: lower-case letters, digits, _ and - (at most 128), neither 'localhost' nor a number",
    name,
  );
}

function parseHost(host: unknown): string {
  const bare = typeof host === 'string' ? host.replace(/^\[(.*)\]$/, '$1') : '';
  check(
    'host',
    isIPv6(bare) ? !bare.includes('%') : HOST.test(bare) && URL.canParse(`http://${bare}`),
    'a host name or an IP address, without scheme, port or path',
    host,
  );
  return bare;
}

function parseMetadata(metadata: unknown): Readonly<Record<string, string>> {
  checkObject(metadata, 'the metadata of an instance');
  const entries = Object.entries(metadata as object);
  check('metadata', entries.length <= MAX_METADATA, `at most ${MAX_METADATA} entries`, entries.length);
  for (const [key, value] of entries) {
    check('metadata', key.length <= 128 && key !== '__proto__', 'keys of at most 128 characters', key);
    check(
      'metadata',
      typeof value === 'string' && value.length <= 1024,
      'strings of at most 1,024 characters',
      value,
    );
  }
  return Object.freeze(Object.fromEntries(entries));
}
