import { ClosedError, InvalidInstanceError } from '../errors.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import { type InstanceRegistration, type ServiceInstance, toInstance } from './service-instance.ts';

/** An origin such as `http://10.0.0.1:8001`, or what `register()` of other discoveries takes. */
export type StaticInstance = string | Omit<InstanceRegistration, 'serviceName'>;

const NONE: readonly ServiceInstance[] = Object.freeze([]);

/** Discovery from a list that never changes, and whose instances always count as alive. */
export class StaticServiceDiscovery implements ServiceDiscovery {
  readonly #services: ReadonlyMap<string, readonly ServiceInstance[]>;
  #closed = false;

  /**
   * @example
   * new StaticServiceDiscovery({ 'user-service': ['http://10.0.0.1:8001', { host: '10.0.0.2', port: 8001, weight: 2 }] });
   * @throws InvalidInstanceError naming what is wrong with an entry.
   */
  constructor(services: Readonly<Record<string, readonly StaticInstance[]>>) {
    if (typeof services !== 'object' || services === null) {
      throw new TypeError('StaticServiceDiscovery takes an object of lists, by the name of the service');
    }
    this.#services = new Map(
      Object.entries(services).map(([serviceName, list]) => [serviceName, instancesOf(serviceName, list)]),
    );
  }

  /** Rejects: the list does not change. */
  async register(): Promise<ServiceInstance> {
    throw new InvalidInstanceError('a static list takes no registrations: use InMemoryServiceDiscovery');
  }

  /** Rejects: the list does not change. */
  async deregister(): Promise<boolean> {
    throw new InvalidInstanceError('a static list cannot be changed: use InMemoryServiceDiscovery');
  }

  /** Rejects: the list does not change. */
  async update(): Promise<boolean> {
    throw new InvalidInstanceError('a static list cannot be changed: use InMemoryServiceDiscovery');
  }

  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    return (await this.instances(serviceName)).some((instance) => instance.instanceId === instanceId);
  }

  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    if (this.#closed) throw new ClosedError('the StaticServiceDiscovery');
    return this.#services.get(serviceName) ?? NONE;
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return Object.freeze((await this.instances(serviceName)).filter(({ status }) => status !== 'unhealthy'));
  }

  /** Never calls the listener: nothing changes. */
  watch(_serviceName: string, _listener: InstanceListener): Unsubscribe {
    return () => {};
  }

  async close(): Promise<void> {
    this.#closed = true;
  }
}

function instancesOf(serviceName: string, list: readonly StaticInstance[]): readonly ServiceInstance[] {
  if (!Array.isArray(list)) throw new TypeError(`the instances of '${serviceName}' must be a list`);
  const instances = list.map((entry) => {
    const registration = typeof entry === 'string' ? fromUrl(entry) : entry;
    const instance = toInstance({ ...registration, serviceName });
    return registration.instanceId === undefined ? withOwnId(instance) : instance;
  });
  const ids = new Set(instances.map(({ instanceId }) => instanceId));
  if (ids.size < instances.length)
    throw new InvalidInstanceError(`'${serviceName}' has two instances with one id`);
  return Object.freeze(instances);
}

/** An id that says where it is, so that it is the same in every process that has the list. */
function withOwnId(instance: ServiceInstance): ServiceInstance {
  const place = `${instance.host}:${instance.port}`;
  const instanceId = /^[A-Za-z\d]/.test(place) ? place : `at:${place}`;
  return Object.freeze({ ...instance, instanceId });
}

function fromUrl(text: string): Omit<InstanceRegistration, 'serviceName'> {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain =
    url !== undefined && /^https?:$/.test(url.protocol) && `${url.pathname}${url.search}${url.hash}` === '/';
  if (!plain || url.username !== '' || url.password !== '') {
    throw new InvalidInstanceError(
      `an instance must be given as http://host:port or https://host:port; got '${text}'`,
    );
  }
  const protocol = url.protocol === 'https:' ? 'https' : 'http';
  return { protocol, host: url.hostname, port: Number(url.port || (protocol === 'https' ? 443 : 80)) };
}
