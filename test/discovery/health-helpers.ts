import type { LockService } from '../../src/discovery/lock-service.ts';
import { type InstanceRegistration, toInstance } from '../../src/discovery/service-instance.ts';

export const service = 'user-service';

export function registration(
  instanceId: string,
  fields: Partial<InstanceRegistration> = {},
): InstanceRegistration {
  return { serviceName: service, instanceId, host: '10.0.0.1', port: 8001, ...fields };
}

export function instance(instanceId: string, fields: Partial<InstanceRegistration> = {}) {
  return toInstance(registration(instanceId, fields));
}

/** Keeps locks in one process, which run out by the clock of `performance.now()`. */
export class InMemoryLockService implements LockService {
  readonly held = new Map<string, { holder: string; until: number }>();

  async acquire(name: string, holder: string, duration: number): Promise<boolean> {
    const lock = this.held.get(name);
    if (lock !== undefined && lock.holder !== holder && performance.now() < lock.until) return false;
    this.held.set(name, { holder, until: performance.now() + duration });
    return true;
  }

  async release(name: string, holder: string): Promise<void> {
    if (this.held.get(name)?.holder === holder) this.held.delete(name);
  }
}
