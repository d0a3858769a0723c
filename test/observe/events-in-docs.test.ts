import { globSync, readFileSync } from 'node:fs';
import { describe, expect, expectTypeOf, it } from 'vitest';
import type { HoldfastGatewayEvents } from '../../src/gateway/index.ts';
import type { DiagnosticsChannels, DiagnosticsMessage, HoldfastEvents } from '../../src/index.ts';
import type { Lines } from '../../src/observe/line.ts';
import { LINES } from '../../src/observe/lines.ts';
import { REDIS_SERVICE_DISCOVERY } from '../../src/observe/lines-of-discovery.ts';
import { EVENT_BUS, POSTGRES_OUTBOX, POSTGRES_PROJECTION } from '../../src/observe/lines-of-messages.ts';
import { GATEWAY, GATEWAY_FILE, REDIS_RATE_LIMITER } from '../../src/observe/lines-of-servers.ts';
import type { CircuitBreakerStats } from '../../src/policies/circuit-breaker-state.ts';
import type { HoldfastPostgresEvents } from '../../src/postgres/index.ts';
import type { HoldfastRedisEvents } from '../../src/redis/index.ts';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');

type AllEvents = HoldfastEvents & HoldfastRedisEvents & HoldfastPostgresEvents & HoldfastGatewayEvents;
type Others = HoldfastRedisEvents & HoldfastPostgresEvents & HoldfastGatewayEvents;

/** Compiles only if each line reads what its event has, and no event of another entry is left out. */
const OTHERS: { readonly [Kind in keyof Others]: Lines<Others[Kind]> } = {
  gateway: GATEWAY,
  'gateway-file': GATEWAY_FILE,
  'postgres-outbox': POSTGRES_OUTBOX,
  'postgres-projection': POSTGRES_PROJECTION,
  'redis-event-bus': EVENT_BUS,
  'redis-rate-limiter': REDIS_RATE_LIMITER,
  'redis-service-discovery': REDIS_SERVICE_DISCOVERY,
};

describe('the events of all emitters', () => {
  it('the lines of each entry are among the lines of observe', () => {
    for (const [kind, of] of Object.entries(OTHERS)) expect(LINES[kind]).toBe(of);
  });

  it('every class that emits events has its kind in the types and in the lines', () => {
    const kinds = globSync('src/**/*.ts', { cwd: root }).flatMap((path) => {
      const source = read(path);
      if (!/extends (Emitter|EmittingPolicy)</.test(source)) return [];
      return Array.from(source.matchAll(/super\('([\w-]+)'[,)]/g), ([, kind]) => kind!);
    });
    expect(new Set(kinds)).toEqual(new Set(Object.keys(LINES)));
  });

  it('each message of a line is told in docs/operations.md where an alert names it', () => {
    const docs = read('docs/operations.md');
    const alerts = docs.slice(docs.indexOf('## Alerts'), docs.indexOf('## Looking at a process'));
    const messages = Object.values(LINES).flatMap((of) =>
      Object.values(of!).flatMap((line) => line?.message ?? []),
    );
    const named = Array.from(alerts.matchAll(/^\| ([^|]*)\|/gm), ([, cell]) => cell!).flatMap((cell) =>
      Array.from(cell.matchAll(/`([a-z][^`]* [^`]*)`/g), ([, message]) => message!),
    );
    expect(named.length).toBeGreaterThan(10);
    for (const name of named) {
      expect(
        messages.some((message) => message.startsWith(name)),
        name,
      ).toBe(true);
    }
  });

  it('the type of a diagnostics channel is the message with the payload of its event', () => {
    type Opened = DiagnosticsChannels['holdfast:circuit-breaker:open'];
    expectTypeOf<Opened['event']['stats']>().toEqualTypeOf<CircuitBreakerStats>();
    type Stale = DiagnosticsChannels<HoldfastRedisEvents>['holdfast:redis-service-discovery:stale'];
    expectTypeOf<Stale>().toEqualTypeOf<
      DiagnosticsMessage<unknown, { serviceName: string; error: unknown; known: boolean }>
    >();
    expectTypeOf<keyof DiagnosticsChannels<AllEvents>>().toExtend<`holdfast:${string}:${string}`>();
    // @ts-expect-error no breaker emits it
    expectTypeOf<DiagnosticsChannels['holdfast:circuit-breaker:explode']>().toBeNever();
  });
});
