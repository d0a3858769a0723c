import { onTestFinished } from 'vitest';
import { type CreateGatewayOptions, createGateway, type GatewayServer } from '../../src/gateway/index.ts';
import type { RouteOptions } from '../../src/gateway/options.ts';
import { ServiceClient, type ServiceOptions, StaticServiceDiscovery } from '../../src/index.ts';
import { openRawClient, type RawClient } from './raw-client.ts';
import { type RecordingUpstream, startRecordingUpstream } from './recording-upstream.ts';

/** The name of the only service behind a gateway of a test. */
export const SERVICE = 'shop';

/** Takes all requests, without a token. */
export const OPEN_ROUTE: RouteOptions = { path: '/*', service: SERVICE, auth: false };

export interface RunningGateway {
  gateway: GatewayServer;
  url: string;
}

/** Starts a gateway in front of a service at these origins. It ends with the test. */
export async function startGateway(
  origins: readonly string[],
  options: Partial<CreateGatewayOptions> = {},
  service: ServiceOptions = { retry: false, circuitBreaker: false },
): Promise<RunningGateway> {
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [...origins] });
  const client = new ServiceClient({ discovery, services: { [SERVICE]: service } });
  const gateway = await createGateway({
    client,
    routes: [OPEN_ROUTE],
    drainDelay: 0,
    shutdownTimeout: 100,
    ...options,
  });
  const url = await gateway.listen({ port: 0 });
  onTestFinished(async () => {
    await gateway.close();
    await client.close();
  });
  return { gateway, url };
}

export interface RecordedGateway extends RunningGateway {
  upstream: RecordingUpstream;
  /** Opens a connection to the gateway. */
  open(): Promise<RawClient>;
}

/** Starts a gateway in front of a service that records the bytes that it gets. */
export async function startRecordedGateway(
  options: Partial<CreateGatewayOptions> = {},
): Promise<RecordedGateway> {
  const upstream = await startRecordingUpstream();
  const running = await startGateway([upstream.origin], options);
  return { ...running, upstream, open: () => openRawClient(running.url) };
}
