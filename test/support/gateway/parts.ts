import { onTestFinished } from 'vitest';
import { Part } from '../../../bench/support/part.ts';
import type { RouteOptions } from '../../../src/gateway/index.ts';
import { freePort } from '../free-port.ts';
import type { ClientsTask } from './clients-process.ts';
import type { GatewayTask } from './gateway-process.ts';

/** The longest body that the gateway of a trial takes on `/small`. */
export const MAX_SMALL_BODY = 1_000;

const ROUTES: readonly RouteOptions[] = [
  { path: '/small', service: 'shop', auth: false, maxBodySize: MAX_SMALL_BODY },
  { path: '/events/*', service: 'shop', auth: false, timeout: 500 },
  { path: '/slow', service: 'uploads', auth: false, timeout: 90_000, maxBodySize: Number.MAX_SAFE_INTEGER },
  { path: '/gone', service: 'gone', auth: false },
  { path: '/sockets', service: 'sockets', auth: false, webSocket: { origins: ['https://shop.example'] } },
  {
    path: '/*',
    service: 'shop',
    auth: false,
    maxBodySize: Number.MAX_SAFE_INTEGER,
    idempotencyKeys: true,
  },
];

export interface RunningPart {
  readonly part: Part;
  readonly url: string;
}

/** Starts a gateway in a process of its own; it ends with the test. */
export async function startGatewayPart(registry: GatewayTask['registry']): Promise<RunningPart> {
  const task: GatewayTask = { registry, routes: ROUTES };
  // What the engine drops of its code, some MiB, would hide as much that is left of requests.
  const part = await start('gateway', task, ['--expose-gc', '--no-flush-bytecode']);
  return { part, url: await part.ask<string>('url') };
}

export async function startClientsPart(task: ClientsTask): Promise<Part> {
  return start('clients', task);
}

/** A gateway in front of a service that is there and one that is gone, each in a process of its own. */
export interface Setting {
  readonly gateway: RunningPart;
  readonly service: Part;
}

export async function startSetting(): Promise<Setting> {
  const service = await start('service', null);
  const gone = `http://127.0.0.1:${await freePort()}`;
  const origin = await service.ask<string>('origin');
  const gateway = await startGatewayPart({ shop: [origin], uploads: [origin], gone: [gone] });
  return { gateway, service };
}

async function start(name: string, task: unknown, execArgv: string[] = []): Promise<Part> {
  const part = await Part.start(new URL(`./${name}-process.ts`, import.meta.url), task, execArgv);
  onTestFinished(() => part.end());
  return part;
}
