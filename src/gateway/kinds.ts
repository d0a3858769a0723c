import type { GatewayFileEvents } from './config/gateway-file.ts';
import type { GatewayEvents } from './gateway-events.ts';

/** The events of every emitter of `holdfast/gateway`, by its kind: see `HoldfastEvents`. */
export interface HoldfastGatewayEvents {
  gateway: GatewayEvents;
  'gateway-file': GatewayFileEvents;
}
