import type { Migration } from './migration.ts';

/** The events of an event store, and how far the projections of it are. */
export const eventStore: Migration = {
  version: 4,
  name: 'event-store',
  statements: [
    // Its only partition is 0: all of its events have one order.
    `create table holdfast.events (
       id bigint generated always as identity primary key,
       xid xid8 not null,
       partition int not null default 0,
       stream_id text not null,
       stream_version int not null,
       position bigint,
       event text not null,
       unique (stream_id, stream_version)
     )`,
    'create index events_unsequenced on holdfast.events (xid, id) where position is null',
    'create unique index events_position on holdfast.events (partition, position) where position is not null',
    // In one round trip. Each statement of the function sees what has committed before it: that after
    // the lock sees all of the stream. The sequencer needs the number of the transaction, and the
    // lock, before the ids. Another version than expected fails no statement, and so no transaction.
    `create function holdfast.append_events(stream text, expected int, lock_class int, lock_key int, added text[])
     returns int language plpgsql as $$
     declare
       version int;
     begin
       perform pg_current_xact_id(), pg_advisory_xact_lock(lock_class, lock_key);
       select coalesce(max(stream_version), 0) into version from holdfast.events where stream_id = stream;
       if expected is null or expected = version then
         insert into holdfast.events (xid, stream_id, stream_version, event)
         select pg_current_xact_id(), stream, version + a.number, a.event
         from unnest(added) with ordinality as a (event, number)
         order by a.number;
       end if;
       return version;
     end $$`,
    `create table holdfast.projections (
       name text primary key,
       position bigint not null
     )`,
  ],
};
