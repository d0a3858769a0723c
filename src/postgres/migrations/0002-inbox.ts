import type { Migration } from './migration.ts';

/** Makes the tables of the events that groups have handled, and of the idempotency keys that were used. */
export const inbox: Migration = {
  version: 2,
  name: 'inbox',
  statements: [
    `create table holdfast.inbox (
       group_name text not null,
       event_id text not null,
       handled_at timestamptz not null default now(),
       primary key (group_name, event_id)
     )`,
    'create index inbox_handled_at on holdfast.inbox (handled_at)',
    // json and not jsonb, which rejects some strings and reorders fields: the result comes back as it was.
    `create table holdfast.keys (
       key text primary key,
       done boolean not null,
       revoked boolean not null default false,
       result json,
       changed_at timestamptz not null default now()
     )`,
    'create index keys_changed_at on holdfast.keys (changed_at)',
  ],
};
