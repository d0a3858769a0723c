import type { InstanceRegistration } from '../../src/index.ts';

/**
 * All contenders register 10,000 instances in 100 services, by default 100 processes with one of
 * each service.
 */
export const SERVICES = 100;
export const INSTANCES = 10_000;
export const PROCESSES = 100;

/** Milliseconds that a response of Redis may take: a whole fleet starts at the same time here. */
export const MAX_WAIT = 30_000;

export function serviceName(service: number): string {
  return `service-${service}`;
}

export function instancesOf(process: number, processes: number): InstanceRegistration[] {
  const count = INSTANCES / processes;
  return Array.from({ length: count }, (_, index) => ({
    serviceName: serviceName(index % SERVICES),
    instanceId: `instance-${process * count + index}`,
    host: `10.0.${process >> 8}.${process & 255}`,
    port: 8000 + (index % SERVICES),
    weight: 1,
    zone: 'eu-1a',
    metadata: { version: '1.4.2' },
  }));
}

/**
 * The instance of the first service that changes: it is registered, then changed, each with the
 * number of the change in its metadata, then deregistered.
 */
export const CHANGING = 'changing';
export const TURNS = 3;
