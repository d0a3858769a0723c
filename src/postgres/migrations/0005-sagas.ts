import type { Migration } from './migration.ts';

/**
 * The times of sagas are whole milliseconds, so that they are the same in the process and here.
 */
const NOW = `date_trunc('milliseconds', clock_timestamp())`;

/** Gives what a function returns to the store: the time, and a result for each item of its list. */
const RESULTS = `json_build_object('now', (extract(epoch from at) * 1000)::bigint, 'results', results)`;

/** No lock that another transaction holds for long delays a statement that is for many sagas. */
const BOUNDED = `set lock_timeout = '2s'`;

/**
 * The sagas, their journals, and how to write to many of them in one round trip. A row for each saga is
 * updated in place with every step: its indexed columns change only at the ends of it, and its page has
 * room for the next version (a HOT update). What is kept as JSON is read by the stores alone: PostgreSQL
 * rejects some of it, such as a zero character. So the step at which a saga failed stands beside its reason.
 */
export const sagas: Migration = {
  version: 5,
  name: 'sagas',
  statements: [
    `create table holdfast.sagas (
       saga_id text collate "C" primary key,
       name text not null,
       version bigint not null,
       input text not null,
       context text not null,
       status text not null default 'running',
       reason text,
       step text,
       cancellable boolean not null,
       created_at timestamptz not null,
       updated_at timestamptz not null,
       due_at timestamptz,
       token int not null default 1,
       owned boolean not null,
       length int not null,
       inputs int not null default 0
     ) with (fillfactor = 60)`,
    'create index sagas_due on holdfast.sagas (name, version, due_at) where due_at is not null',
    'create index sagas_status on holdfast.sagas (status, created_at, saga_id)',
    // A row has the entries of one change, as a list; its number is that of entries before it.
    `create table holdfast.saga_entries (
       saga_id text collate "C" not null,
       number int not null,
       at timestamptz not null,
       entries text not null,
       primary key (saga_id, number)
     )`,
    `create table holdfast.saga_inputs (
       saga_id text collate "C" not null,
       number int not null,
       input_id text not null,
       input text not null,
       primary key (saga_id, number),
       unique (saga_id, input_id)
     )`,
    `create table holdfast.saga_events (
       id bigint generated always as identity primary key,
       saga_id text collate "C" not null,
       event text not null
     )`,
    // Each statement of a function sees what has committed before it. All that write to several sagas
    // lock them in the order of their ids, so that no two wait for each other.
    `create function holdfast.create_sagas(list json)
     returns text language plpgsql ${BOUNDED} as $$
     declare
       saga record;
       at timestamptz := ${NOW};
       results text[];
     begin
       for saga in
         select * from rows from (json_to_recordset(list) as (
           saga_id text, name text, version bigint, input text, context text, cancellable boolean,
           lease float8, length int, entries text, events json
         )) with ordinality order by saga_id collate "C"
       loop
         insert into holdfast.sagas
           (saga_id, name, version, input, context, cancellable, created_at, updated_at, due_at, owned, length)
         values (
           saga.saga_id, saga.name, saga.version, saga.input, saga.context, saga.cancellable, at, at,
           at + saga.lease * interval '1 millisecond' * 4 / 3, saga.lease > 0, saga.length
         ) on conflict do nothing;
         results[saga.ordinality] := case when found then 'created' else 'exists' end;
         continue when not found;
         insert into holdfast.saga_entries values (saga.saga_id, 0, at, saga.entries);
         insert into holdfast.saga_events (saga_id, event)
           select saga.saga_id, e.event from json_array_elements_text(saga.events) as e (event)
           where saga.events is not null;
       end loop;
       return ${RESULTS};
     end $$`,
    `create function holdfast.write_sagas(list json)
     returns text language plpgsql ${BOUNDED} as $$
     declare
       change record;
       saga record;
       due interval;
       result text;
       at timestamptz := ${NOW};
       results text[];
     begin
       for change in
         select * from rows from (json_to_recordset(list) as (
           saga_id text, token int, length int, added int, entries text, inputs int, status text, reason text,
           step text, cancellable boolean, owned boolean, due_in float8, events json
         )) with ordinality order by saga_id collate "C"
       loop
         due := change.due_in * interval '1 millisecond';
         update holdfast.sagas s set
           status = change.status, reason = change.reason, step = change.step, cancellable = change.cancellable,
           owned = change.owned, updated_at = at, length = s.length + change.added,
           due_at = case
             when change.owned and s.due_at between at + due and at + due * 2 then s.due_at
             when change.owned then at + due * 4 / 3
             else at + due
           end
         where s.saga_id = change.saga_id and s.token = change.token and s.owned
           and s.length = change.length and s.inputs <= change.inputs;
         if found then
           result := 'written';
           if change.added > 0 then
             insert into holdfast.saga_entries values (change.saga_id, change.length, at, change.entries);
           end if;
           if change.events is not null then
             insert into holdfast.saga_events (saga_id, event)
               select change.saga_id, e.event from json_array_elements_text(change.events) as e (event);
           end if;
         else
           select s.token, s.owned, s.length into saga from holdfast.sagas s
             where s.saga_id = change.saga_id for update;
           result := case
             when saga.token is distinct from change.token then 'lost'
             when change.added > 0 and saga.length = change.length + change.added then 'repeated'
             when not saga.owned or saga.length <> change.length then 'lost'
             else 'inputs'
           end;
         end if;
         results[change.ordinality] := result;
       end loop;
       return ${RESULTS};
     end $$`,
    `create function holdfast.send_saga_input(
       id text, new_id text, new_step text, new_input text, condition text, max_inputs int
     ) returns text language plpgsql ${BOUNDED} as $$
     declare
       saga record;
       fulfilled boolean;
     begin
       select status, step, cancellable, inputs into saga from holdfast.sagas where saga_id = id for update;
       if not found then
         return 'missing';
       end if;
       perform from holdfast.saga_inputs where saga_id = id and input_id = new_id;
       if found then
         return 'known';
       end if;
       fulfilled := case condition
         when 'stuck' then saga.status = 'stuck'
           and (new_step is null or new_step is not distinct from saga.step)
         when 'cancellable' then saga.cancellable
         else saga.status not in ('completed', 'compensated')
       end;
       if not fulfilled or saga.inputs >= max_inputs then
         return 'rejected';
       end if;
       insert into holdfast.saga_inputs values (id, saga.inputs, new_id, new_input);
       update holdfast.sagas set
         inputs = inputs + 1,
         due_at = case when owned then due_at else least(due_at, ${NOW}) end
       where saga_id = id;
       return 'added';
     end $$`,
  ],
};
