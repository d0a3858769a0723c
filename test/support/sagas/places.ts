import pg from 'pg';
import { ServiceClient } from '../../../src/client/service-client.ts';
import { StaticServiceDiscovery } from '../../../src/discovery/static-service-discovery.ts';
import { fromPg } from '../../../src/postgres/from-pg.ts';
import { PostgresSagaStore } from '../../../src/postgres/postgres-saga-store.ts';
import { RedisSagaStore } from '../../../src/redis/redis-saga-store.ts';
import type { SagaStore } from '../../../src/saga/saga-store.ts';

/** Where the sagas are: the URL of a server of one's own. */
export type SagaPlace = { readonly redis: string } | { readonly postgres: string };

/** The origins of the services, by their names. */
export type Origins = Readonly<Record<string, string[]>>;

/** Milliseconds after which another orchestrator takes over. */
export const LEASE = 1_000;
/** Milliseconds for which nobody takes over, however busy the machine is. */
export const LONG_LEASE = 30_000;

export interface OpenStore {
  readonly store: SagaStore;
  close(): Promise<void>;
}

export function openStore(place: SagaPlace): OpenStore {
  if ('redis' in place) {
    const store = new RedisSagaStore(place);
    return { store, close: () => store.close() };
  }
  const pool = new pg.Pool({ connectionString: place.postgres, max: 4 });
  pool.on('error', () => {});
  return { store: new PostgresSagaStore({ database: fromPg(pool) }), close: () => pool.end() };
}

export function createClient(origins: Origins): ServiceClient {
  return new ServiceClient({ discovery: new StaticServiceDiscovery(origins) });
}
