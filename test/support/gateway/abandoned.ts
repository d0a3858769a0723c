import { expect, vi } from 'vitest';
import type { GatewayUsage } from './gateway-process.ts';
import type { Setting } from './parts.ts';
import type { ServiceCounts } from './service-process.ts';

/** Bytes of heap for each request, above which something of it must be kept, and for the process itself. */
const KEPT = 100;
const NOISE = 200_000;
/** Milliseconds after which idle connections are closed: those of undici after four seconds. */
const CLOSED_WITHIN = 15_000;

export interface Abandoned {
  /** Requests that each call of `abandon` makes. */
  count: number;
  abandon(): Promise<unknown>;
}

/** Abandons requests: afterwards no socket is open, and memory and listeners are where they were. Gives the figures. */
export async function leaveNothing(
  { gateway, service }: Setting,
  { count, abandon }: Abandoned,
): Promise<string> {
  const settle = async () => {
    let usage = await gateway.part.ask<GatewayUsage>('usage');
    await vi.waitFor(
      async () => {
        usage = await gateway.part.ask<GatewayUsage>('usage');
        const { connections } = await service.ask<ServiceCounts>('counts');
        expect({ sockets: usage.sockets, connections }).toEqual({ sockets: 0, connections: 0 });
      },
      { interval: 100, timeout: CLOSED_WITHIN },
    );
    return usage;
  };
  // The first ones make code and buffers that stay.
  await abandon();
  const before = await settle();

  await abandon();

  const after = await settle();
  const { received } = await service.ask<ServiceCounts>('counts');
  // Else most have never reached the service, and little was shown.
  expect(received).toBeGreaterThan(count / 2);
  expect(after.listeners).toBe(before.listeners);
  expect(after.warnings).toEqual([]);
  const kept = after.heap - before.heap;
  expect(kept).toBeLessThan(count * KEPT + NOISE);
  return `0 sockets, 0 listeners, ${(kept / count).toFixed(0)} bytes of heap a request`;
}
