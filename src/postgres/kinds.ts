import type { PostgresOutboxEvents } from './postgres-outbox.ts';
import type { PostgresProjectionEvents } from './postgres-projection.ts';

/** The events of every emitter of `holdfast/postgres`, by its kind: see `HoldfastEvents`. */
export interface HoldfastPostgresEvents {
  'postgres-outbox': PostgresOutboxEvents;
  'postgres-projection': PostgresProjectionEvents;
}
