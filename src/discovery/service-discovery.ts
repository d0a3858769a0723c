import type { InstanceChanges, InstanceRegistration, ServiceInstance } from './service-instance.ts';

/** Takes back a subscription. Calling it again does nothing. */
export type Unsubscribe = () => void;

/** Is given all live instances of the service after each change, in order. */
export type InstanceListener = (instances: readonly ServiceInstance[]) => void;

/** Who is out there. Lists are snapshots: frozen, and a new one only when something changed. */
export interface ServiceDiscovery {
  /** Adds an instance, or takes the place of the one with its id. Gives it as it was filled in. */
  register(registration: InstanceRegistration): Promise<ServiceInstance>;
  /** True if it was known. */
  deregister(serviceName: string, instanceId: string): Promise<boolean>;
  /**
   * Changes what may change of an instance without registering it again; false if it is not known. A discovery whose
   * lists are written elsewhere keeps the changes in this process.
   */
  update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean>;
  /**
   * Keeps it alive; false if it is not known, so that it has to register again.
   *
   * @throws InstanceReplacedError where the discovery tells that another process has registered under the id.
   */
  heartbeat(serviceName: string, instanceId: string): Promise<boolean>;
  /** All live instances, whatever their status. */
  instances(serviceName: string): Promise<readonly ServiceInstance[]>;
  /** Those that are not known to be unhealthy. */
  healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]>;
  /**
   * Whether the service is known without a lookup: it is configured here, or has instances in memory. It begins nothing
   * and never throws, since it is asked for any host outside the mesh.
   */
  knows?(serviceName: string): boolean;
  /** Tells of each change from now on; what is there now, `instances` tells. */
  watch(serviceName: string, listener: InstanceListener): Unsubscribe;
  /**
   * Hints that what is known of the service seems out of date: a connection failed, or no instance is left. The
   * discovery may look again soon, and decides itself how often, so that every failure may be hinted. Never throws.
   */
  refresh?(serviceName: string): void;
  /** Ends the watching. Calling it again does nothing. */
  close(): Promise<void>;
}
