import { ClosedError, DiscoveryUnavailableError, InvalidInstanceError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { shown } from '../internal/shown.ts';
import {
  anObject,
  MAX_DELAY,
  nonEmptyString,
  number,
  objectOf,
  validateOptions,
} from '../internal/validate.ts';
import { OverlaidList } from './overlaid-list.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import {
  checkFields,
  checkServiceName,
  type InstanceChanges,
  type InstanceRegistration,
  type ServiceInstance,
  sameInstance,
  toInstance,
} from './service-instance.ts';
import { JsonFile } from './static-file.ts';
import { type InstancesUpdate, Watchers } from './watchers.ts';

/**
 * An origin such as `http://10.0.0.1:8001`, or a registration as `register()` of other discoveries
 * takes it.
 */
export type StaticInstance = string | Omit<InstanceRegistration, 'serviceName'>;

/** Lists of instances by the name of the service. */
export type StaticServices = Readonly<Record<string, readonly StaticInstance[]>>;

export interface StaticFileOptions {
  /** Milliseconds between two readings of the file. Default 1,000. */
  interval?: number | undefined;
}

export interface StaticServiceDiscoveryEvents {
  /** The file is gone or invalid, and the last good list stays. Emitted once while that lasts. */
  failure: [event: { error: DiscoveryUnavailableError }];
}

type Services = ReadonlyMap<string, readonly ServiceInstance[]>;

const NONE: readonly ServiceInstance[] = Object.freeze([]);

/**
 * Discovers services in a list, whose instances always count as alive. The list is given in code or
 * by the environment and never changes, or it is in a file whose every change is taken over. A
 * change by `update()` is known to this process alone.
 */
export class StaticServiceDiscovery
  extends Emitter<StaticServiceDiscoveryEvents>
  implements ServiceDiscovery
{
  readonly #watchers = new Watchers();
  #lists: Map<string, OverlaidList>;
  #file: JsonFile | undefined = undefined;
  #closed = false;

  /**
   * @example
   * new StaticServiceDiscovery({ 'user-service': ['http://10.0.0.1:8001', { host: '10.0.0.2', port: 8001, weight: 2 }] });
   * @throws InvalidInstanceError naming what is wrong with an entry.
   */
  constructor(services: StaticServices) {
    super('static-service-discovery');
    this.#lists = toLists(parseServices(services));
    for (const entry of Object.values(services).flat()) if (typeof entry === 'object') checkFields(entry);
  }

  /**
   * Creates a discovery from a file of JSON, at most 1 MiB, with the argument of the constructor:
   * `{ "user-service": ["http://10.0.0.1:8001"] }`. The file is read again every `interval`,
   * whether it is edited in place, replaced, or mounted from a Kubernetes ConfigMap; watchers are
   * notified of the services that changed. A file that is gone or invalid changes nothing, and is a
   * `failure` event. The discovery does not hold the process open.
   *
   * @throws DiscoveryUnavailableError naming the file and what is wrong with it, if the first
   * reading fails.
   */
  static async fromFile(
    path: string | URL,
    options: StaticFileOptions = {},
  ): Promise<StaticServiceDiscovery> {
    validateOptions('StaticServiceDiscovery.fromFile', options, { interval: number(1, MAX_DELAY) });
    const discovery = new StaticServiceDiscovery({});
    const file = new JsonFile(path, (content) => discovery.#replace(content as StaticServices));
    await file.read();
    file.follow(options.interval ?? 1_000, (error) => discovery.emit('failure', { error }));
    discovery.#file = file;
    return discovery;
  }

  /**
   * Creates a discovery from environment variables.
   * `HOLDFAST_INSTANCES_USER_SERVICE=http://10.0.0.1:8001,http://10.0.0.2:8001` gives the instances
   * of `user-service`: the rest of the variable's name in lower case, each `_` a `-`.
   * `HOLDFAST_INSTANCES` has the argument of the constructor as JSON, for other names and for
   * fields that an origin does not have. An empty variable counts as unset.
   *
   * @throws DiscoveryUnavailableError naming the variable and what is wrong with it, such as a
   * service that another variable names too.
   */
  static fromEnvironment(
    env: Readonly<Record<string, string | undefined>> = process.env,
    prefix = 'HOLDFAST_INSTANCES',
  ): StaticServiceDiscovery {
    // Where there are no variables at all process.env has no fields.
    if (env !== process.env) anObject(env, 'the environment of StaticServiceDiscovery.fromEnvironment');
    nonEmptyString(prefix, 'StaticServiceDiscovery.fromEnvironment prefix');
    const services = new Map<string, readonly ServiceInstance[]>();
    for (const [variable, value = ''] of Object.entries(env)) {
      if (value.trim() === '' || !(variable === prefix || variable.startsWith(`${prefix}_`))) continue;
      try {
        const named =
          variable === prefix ? JSON.parse(value) : parseVariable(variable.slice(prefix.length + 1), value);
        for (const [serviceName, instances] of parseServices(named)) {
          if (services.has(serviceName)) {
            throw new InvalidInstanceError(`another variable names instances of '${serviceName}' too`);
          }
          services.set(serviceName, instances);
        }
      } catch (cause) {
        throw new DiscoveryUnavailableError(
          `the instances in the environment variable ${shown(variable)} cannot be used: ${(cause as Error).message}`,
          { cause },
        );
      }
    }
    const discovery = new StaticServiceDiscovery({});
    discovery.#lists = toLists(services);
    return discovery;
  }

  /** Rejects: a static list takes no registrations. */
  async register(): Promise<ServiceInstance> {
    throw new InvalidInstanceError('a static list takes no registrations: use InMemoryServiceDiscovery');
  }

  /** Rejects, as `register` does. */
  async deregister(): Promise<boolean> {
    throw new InvalidInstanceError('a static list cannot be changed: use InMemoryServiceDiscovery');
  }

  /**
   * Changes the instance in this process alone. The changes hold, whatever the file says of the
   * same fields, until the instance leaves the file, moves, or gets another `registeredAt` there.
   *
   * @throws InvalidInstanceError naming the field that is not what it must be, or may not change.
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    this.#throwIfClosed();
    const before = this.#instancesOf(serviceName);
    if (!this.#lists.get(serviceName)?.update(instanceId, changes)) return false;
    const instances = this.#instancesOf(serviceName);
    if (instances !== before) this.#watchers.notify(serviceName, instances);
    return true;
  }

  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    return (await this.instances(serviceName)).some((instance) => instance.instanceId === instanceId);
  }

  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    this.#throwIfClosed();
    return this.#instancesOf(serviceName);
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return Object.freeze((await this.instances(serviceName)).filter(({ status }) => status !== 'unhealthy'));
  }

  knows(serviceName: string): boolean {
    return this.#instancesOf(serviceName).length > 0;
  }

  /** Calls the listener after each change of the file, and after each change by `update`. */
  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    return this.#watchers.watch(serviceName, listener);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#file?.close();
    this.#watchers.clear();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new ClosedError('the StaticServiceDiscovery');
  }

  #instancesOf(serviceName: string): readonly ServiceInstance[] {
    return this.#lists.get(serviceName)?.instances ?? NONE;
  }

  #replace(content: StaticServices): void {
    const before = new Map(Array.from(this.#lists, ([serviceName, { listed }]) => [serviceName, listed]));
    const services = parseServices(content, before);
    const changes: InstancesUpdate[] = [];
    for (const serviceName of new Set([...before.keys(), ...services.keys()])) {
      const shown = this.#instancesOf(serviceName);
      this.#setList(serviceName, services.get(serviceName));
      const instances = this.#instancesOf(serviceName);
      if (instances !== shown) changes.push({ serviceName, instances });
    }
    this.#watchers.notifyAll(changes);
  }

  #setList(serviceName: string, listed: readonly ServiceInstance[] | undefined): void {
    const list = this.#lists.get(serviceName);
    if (listed === undefined) this.#lists.delete(serviceName);
    else if (list === undefined) this.#lists.set(serviceName, new OverlaidList(listed));
    else list.replace(listed);
  }
}

function toLists(services: Services): Map<string, OverlaidList> {
  return new Map(Array.from(services, ([serviceName, listed]) => [serviceName, new OverlaidList(listed)]));
}

const lists = objectOf('an object of lists, by the name of the service');

/**
 * Parses lists of instances. An instance or a list that equals the one in `before` is the same
 * object.
 */
function parseServices(services: StaticServices, before: Services = new Map()): Services {
  lists(services, 'what StaticServiceDiscovery is made of');
  return new Map(
    Object.entries(services).map(([serviceName, list]) => {
      checkServiceName(serviceName);
      return [serviceName, parseInstances(serviceName, list, before.get(serviceName) ?? NONE)];
    }),
  );
}

function parseInstances(
  serviceName: string,
  list: readonly StaticInstance[],
  before: readonly ServiceInstance[],
): readonly ServiceInstance[] {
  if (!Array.isArray(list)) throw new TypeError(`the instances of '${serviceName}' must be a list`);
  const known = new Map(before.map((instance) => [instance.instanceId, instance]));
  const instances = list.map((entry) => {
    const registration = typeof entry === 'string' ? parseOrigin(entry) : entry;
    const checked = toInstance({ ...registration, serviceName });
    const instance = registration.instanceId === undefined ? withAddressId(checked) : checked;
    return keepIdentity(known.get(instance.instanceId), instance, registration.registeredAt);
  });
  const ids = new Set(instances.map(({ instanceId }) => instanceId));
  if (ids.size < instances.length)
    throw new InvalidInstanceError(`'${serviceName}' has two instances with one id`);
  if (instances.length === 0) return NONE;
  const same =
    instances.length === before.length && instances.every((instance, index) => instance === before[index]);
  return same ? before : Object.freeze(instances);
}

/**
 * Gives the known object if it is equal. An instance without a `registeredAt` of its own keeps the
 * known one.
 */
function keepIdentity(
  known: ServiceInstance | undefined,
  instance: ServiceInstance,
  registeredAt = known?.registeredAt ?? instance.registeredAt,
): ServiceInstance {
  const timed = Object.freeze({ ...instance, registeredAt });
  return known !== undefined && sameInstance(known, timed) ? known : timed;
}

/**
 * Gives the instance an id made of its address, which is the same in every process that has the
 * list.
 */
function withAddressId(instance: ServiceInstance): ServiceInstance {
  const address = `${instance.host}:${instance.port}`;
  const instanceId = /^[A-Za-z\d]/.test(address) ? address : `at:${address}`;
  return Object.freeze({ ...instance, instanceId });
}

function parseOrigin(text: string): Omit<InstanceRegistration, 'serviceName'> {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain =
    url !== undefined && /^https?:$/.test(url.protocol) && `${url.pathname}${url.search}${url.hash}` === '/';
  if (!plain || url.username !== '' || url.password !== '') {
    throw new InvalidInstanceError(
      `an instance must be given as http://host:port or https://host:port; got ${shown(text)}`,
    );
  }
  const protocol = url.protocol === 'https:' ? 'https' : 'http';
  return { protocol, host: url.hostname, port: Number(url.port || (protocol === 'https' ? 443 : 80)) };
}

function parseVariable(name: string, value: string): StaticServices {
  const origins = value.split(',').filter((origin) => origin.trim() !== '');
  return { [name.toLowerCase().replaceAll('_', '-')]: origins };
}
