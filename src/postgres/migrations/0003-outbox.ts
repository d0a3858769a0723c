import type { Migration } from './migration.ts';

/**
 * Rows come and go here at the rate of the events: vacuum must not wait until a share of a table
 * that was large has died.
 */
const QUEUE =
  'autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0';

/** Leases, and the events on their way to a bus. */
export const outbox: Migration = {
  version: 3,
  name: 'outbox',
  statements: [
    `create table holdfast.leases (
       name text primary key,
       holder text not null,
       token bigint not null,
       duration interval not null,
       until timestamptz not null
     )`,
    `create table holdfast.outbox (
       id bigint generated always as identity primary key,
       xid xid8 not null,
       partition int not null,
       topic text not null,
       position bigint,
       event text not null
     ) with (${QUEUE})`,
    // Each finds its rows without a look at those before them, which may be dead and not removed yet.
    'create index outbox_unsequenced on holdfast.outbox (xid, id) where position is null',
    'create unique index outbox_position on holdfast.outbox (partition, position) where position is not null',
    `create table holdfast.outbox_partitions (
       partition int primary key,
       deleted bigint not null default 0,
       marked bigint not null default 0,
       marked_at timestamptz not null default '-infinity'
     )`,
  ],
};
