import { type InstanceRegistration, toInstance } from '../../src/discovery/service-instance.ts';
import { encodeInstance, type RegistryEntry } from '../../src/redis/registry-format.ts';
import type {
  HeartbeatResult,
  Registration,
  RegistryContent,
  ServiceRegistry,
  TouchResult,
} from '../../src/redis/service-registry.ts';

export const service = 'user-service';
export const TTL = 90_000;

export interface Fields extends Partial<InstanceRegistration> {
  epoch?: number;
}

export function jsonOf(instanceId: string, fields: Partial<InstanceRegistration> = {}): string {
  const registration = { serviceName: service, instanceId, host: '10.0.0.1', port: 8001, registeredAt: 0 };
  return encodeInstance(toInstance({ ...registration, ...fields }));
}

export function recordOf(instanceId: string, { epoch = 1, ...fields }: Fields = {}): string {
  return `${epoch} ${TTL} ${jsonOf(instanceId, fields)}`;
}

/** An entry as it is read; a `status` is what a check found. */
export function entryOf(instanceId: string, fields: Fields = {}, status?: string): RegistryEntry {
  return { instanceId, record: recordOf(instanceId, fields), status, expiresAt: TTL };
}

interface Held {
  epoch: number;
  record: string;
  status: string | undefined;
}

/**
 * The registry of services, as it is in Redis but for the leases: instances expire when a test says
 * so. A command takes effect in order, and resolves after `latency`.
 */
export class FakeRegistry {
  readonly services = new Map<string, { version: number; held: Map<string, Held> }>();
  /** Each command that was sent, and when. */
  readonly commands: { name: string; at: number; ids: string[] }[] = [];
  /** Receives each published message. */
  onPublish: (text: string) => void = () => {};
  latency = 0;
  /** What commands fail with. */
  failure: Error | undefined = undefined;
  /** Why Redis rejects writes, if it does: tests then register and expire nobody. */
  rejection: string | undefined = undefined;
  nextExpiry = Infinity;
  #epoch = 0;

  /** What a class under test takes. */
  get asRegistry(): ServiceRegistry {
    return this as unknown as ServiceRegistry;
  }

  count(name: string): number {
    return this.commands.filter((command) => command.name === name).length;
  }

  /** When commands of the name were sent. */
  timesOf(name: string): number[] {
    return this.commands.filter((command) => command.name === name).map(({ at }) => at);
  }

  held(serviceName = service): Map<string, Held> {
    return this.#service(serviceName).held;
  }

  /** Registers an instance as another process would. */
  put(instanceId: string, fields: Fields = {}): void {
    const { epoch = ++this.#epoch } = fields;
    this.#hold(service, instanceId, epoch, recordOf(instanceId, { ...fields, epoch }));
  }

  remove(instanceId: string): void {
    if (this.held().delete(instanceId)) this.#publish(service, `deregistered ${instanceId}`);
  }

  expire(...instanceIds: string[]): void {
    const expired = instanceIds.filter((instanceId) => this.held().delete(instanceId));
    if (expired.length > 0) this.#publish(service, `expired ${expired.join(',')}`);
  }

  check(instanceId: string, status: string): void {
    const held = this.held().get(instanceId);
    if (held === undefined || held.status === status) return;
    held.status = status;
    this.#publish(service, `status ${instanceId} ${status}`);
  }

  /** FLUSHALL. */
  forgetAll(): void {
    this.services.clear();
  }

  async read(serviceName: string): Promise<RegistryContent> {
    return this.#command('read', [], () => {
      const entries = Array.from(this.held(serviceName), ([instanceId, { record, status }]) => ({
        instanceId,
        record,
        status,
        expiresAt: TTL,
      }));
      return { ...this.#state(serviceName), entries, damaged: [] };
    });
  }

  async touch(serviceName: string): Promise<TouchResult> {
    return this.#command('touch', [], () => this.#state(serviceName));
  }

  async register(registration: Omit<Registration, 'epoch'> & { epoch?: string | undefined }) {
    const { serviceName, instanceId, ttl, json } = registration;
    return this.#command('register', [instanceId], () => {
      const before = this.held(serviceName).get(instanceId)?.epoch ?? 0;
      if (registration.epoch !== undefined && before > Number(registration.epoch)) return undefined;
      const epoch = Number(registration.epoch ?? ++this.#epoch);
      this.#hold(serviceName, instanceId, epoch, `${epoch} ${ttl} ${json}`);
      return String(epoch);
    });
  }

  async deregister(serviceName: string, instanceId: string, epoch: string | undefined): Promise<boolean> {
    return this.#command('deregister', [instanceId], () => {
      const before = this.held(serviceName).get(instanceId)?.epoch;
      if (before === undefined || before > Number(epoch ?? before)) return false;
      this.held(serviceName).delete(instanceId);
      this.#publish(serviceName, `deregistered ${instanceId}`);
      return true;
    });
  }

  async heartbeat(registrations: readonly Registration[]): Promise<HeartbeatResult[]> {
    const ids = registrations.map(({ instanceId }) => instanceId);
    return this.#command('heartbeat', ids, () =>
      registrations.map(({ serviceName, instanceId, epoch }) => {
        const held = this.held(serviceName).get(instanceId);
        if (held === undefined || held.epoch < Number(epoch)) return 'unknown';
        return held.epoch === Number(epoch) ? 'alive' : 'replaced';
      }),
    );
  }

  async #command<T>(name: string, ids: string[], effect: () => T): Promise<T> {
    this.commands.push({ name, at: performance.now(), ids });
    const { failure, latency } = this;
    const result = failure === undefined ? effect() : undefined;
    if (latency > 0) await new Promise((resolve) => setTimeout(resolve, latency));
    if (failure !== undefined) throw failure;
    return result as T;
  }

  #service(serviceName: string) {
    const found = this.services.get(serviceName) ?? { version: 0, held: new Map<string, Held>() };
    this.services.set(serviceName, found);
    return found;
  }

  #state(serviceName: string): TouchResult {
    const { version } = this.#service(serviceName);
    const { nextExpiry, rejection } = this;
    return { version, now: Math.floor(Date.now()), nextExpiry, rejection };
  }

  #hold(serviceName: string, instanceId: string, epoch: number, record: string): void {
    const before = this.held(serviceName).get(instanceId);
    const status = before?.epoch === epoch ? before.status : undefined;
    this.held(serviceName).set(instanceId, { epoch, record, status });
    if (before?.record !== record) this.#publish(serviceName, `registered ${instanceId} ${record}`);
  }

  #publish(serviceName: string, what: string): void {
    const of = this.#service(serviceName);
    of.version = of.version === 0 ? Math.floor(Date.now()) * 1000 : of.version + 1;
    const next = this.nextExpiry === Infinity ? -1 : this.nextExpiry;
    if (serviceName === service) this.onPublish(`${of.version} ${Math.floor(Date.now())} ${next} ${what}`);
  }
}
