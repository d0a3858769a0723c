export type { Database, Executor, QueryResult, Transaction } from './database.ts';
export { toDatabaseError } from './database-error.ts';
export {
  fromKysely,
  type KyselyDatabase,
  type KyselyExecutor,
  type KyselyTransaction,
} from './from-kysely.ts';
export { fromPg, type PgClient, type PgPool, type PgPoolClient } from './from-pg.ts';
export type { HoldfastPostgresEvents } from './kinds.ts';
export { migrate } from './migrate.ts';
export {
  type AppendOptions,
  type PositionedEvent,
  PostgresEventStore,
  type PostgresEventStoreOptions,
  type ReadOptions,
  type StreamEvent,
} from './postgres-event-store.ts';
export {
  PostgresIdempotencyStore,
  type PostgresIdempotencyStoreOptions,
} from './postgres-idempotency-store.ts';
export { PostgresInbox, type PostgresInboxOptions, type Revocation } from './postgres-inbox.ts';
export { PostgresOutbox, type PostgresOutboxEvents, type PostgresOutboxOptions } from './postgres-outbox.ts';
export {
  PostgresProjection,
  type PostgresProjectionEvents,
  type PostgresProjectionOptions,
} from './postgres-projection.ts';
export { PostgresSagaStore, type PostgresSagaStoreOptions } from './postgres-saga-store.ts';
export { readSource, resetSource } from './source.ts';
