import { type BrokerOptions, ServiceBroker } from 'moleculer';

/** Seconds between heartbeats unless one says otherwise. */
export const DEFAULT_INTERVAL = 10;

/** A node that finds others through Redis; what nodes say to one another goes through Redis too. */
export function brokerOf(url: string, nodeID: string, options: BrokerOptions = {}): ServiceBroker {
  const { hostname: host, port } = new URL(url);
  const redis = { host, port: Number(port) };
  return new ServiceBroker({
    nodeID,
    logger: false,
    transporter: { type: 'Redis', options: redis },
    registry: { discoverer: { type: 'Redis', options: { redis } } },
    skipProcessEventRegistration: true,
    metadata: { version: '1.4.2', zone: 'eu-1a' },
    ...options,
  });
}

/**
 * A node that knows what it is told, by the function that its discoverer calls with what it has read. With services
 * of its own it would beat, and find that those nodes do not.
 */
export async function knowing(url: string): Promise<ServiceBroker> {
  const broker = brokerOf(url, 'client', { internalServices: false, heartbeatInterval: 3_600 });
  await broker.start();
  return broker;
}

export function serviceOf(name: string) {
  return { name, actions: { get: () => 1 } };
}

/**
 * Builds the records that `nodes` nodes, each with these services, put into Redis about themselves.
 */
export async function infosOf(nodes: number, services: readonly string[]): Promise<string[]> {
  const broker = new ServiceBroker({ logger: false, skipProcessEventRegistration: true });
  for (const name of services) broker.createService(serviceOf(name));
  await broker.start();
  const info = broker.registry.getLocalNodeInfo();
  await broker.stop();
  return Array.from({ length: nodes }, (_, index) =>
    JSON.stringify({ ver: broker.PROTOCOL_VERSION, sender: `node-${index}`, ...info }),
  );
}

export function tell(broker: ServiceBroker, infos: readonly string[]): void {
  for (const info of infos) broker.registry.processNodeInfo(JSON.parse(info));
}
