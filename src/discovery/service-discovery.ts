import type { InstanceChanges, InstanceRegistration, ServiceInstance } from './service-instance.ts';

/** Ends a subscription. A second call does nothing. */
export type Unsubscribe = () => void;

/** Receives all live instances of a service after each change, in order. */
export type InstanceListener = (instances: readonly ServiceInstance[]) => void;

/**
 * Tells the instances of services. Each list is a frozen snapshot, and a new one only when
 * something changed.
 */
export interface ServiceDiscovery {
  /**
   * Adds an instance, or replaces the one with its id. Gives the instance with all fields filled
   * in.
   */
  register(registration: InstanceRegistration): Promise<ServiceInstance>;
  /** Removes an instance. Gives true if it was known. */
  deregister(serviceName: string, instanceId: string): Promise<boolean>;
  /**
   * Changes an instance without registering it again. Gives false if the instance is not known. A
   * discovery whose lists are written elsewhere keeps the changes in this process.
   */
  update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean>;
  /**
   * Keeps an instance alive. Gives false if the instance is not known, so that it has to be
   * registered again.
   *
   * @throws InstanceReplacedError if another process has registered under the id, where the
   * discovery can tell that.
   */
  heartbeat(serviceName: string, instanceId: string): Promise<boolean>;
  /** Gives all live instances, whatever their status. */
  instances(serviceName: string): Promise<readonly ServiceInstance[]>;
  /** Gives the live instances that are not known to be unhealthy. */
  healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]>;
  /**
   * Tells whether the service is known without a lookup: it is configured here, or has instances in
   * memory. It starts nothing and never throws, since it is called for every host outside the mesh.
   */
  knows?(serviceName: string): boolean;
  /** Calls the listener after each change from now on; `instances` gives the present list. */
  watch(serviceName: string, listener: InstanceListener): Unsubscribe;
  /**
   * Hints that the list of the service seems out of date: a connection failed, or no instance is
   * left. The discovery may look the service up again soon, and decides itself how often, so that
   * every failure may be hinted. Never throws.
   */
  refresh?(serviceName: string): void;
  /**
   * Milliseconds that an instance which is registered here stays without a heartbeat, by which a
   * ServiceRegistrar paces its own. Undefined: for ever.
   */
  readonly instanceTtl?: number | undefined;
  /** Stops watching. A second call does nothing. */
  close(): Promise<void>;
}
