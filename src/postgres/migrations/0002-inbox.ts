import type { Migration } from './migration.ts';

/** Makes the tables of the events that groups have handled, and of the idempotency keys that were used. */
export const inbox: Migration = {
  version: 2,
  name: 'inbox',
  statements: [
    `create table holdfast.inbox (
       group_name text not null,
       event_id text not null,
       expires_at timestamptz not null,
       primary key (group_name, event_id)
     )`,
    'create index inbox_expires_at on holdfast.inbox (expires_at)',
    // json and not jsonb, which rejects some strings and reorders fields: the result comes back as it was.
    `create table holdfast.keys (
       key text primary key,
       done boolean not null,
       revoked boolean not null default false,
       result json,
       expires_at timestamptz not null
     )`,
    'create index keys_expires_at on holdfast.keys (expires_at)',
  ],
};
