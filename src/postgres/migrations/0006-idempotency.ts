import type { Migration } from './migration.ts';

/** Makes the table of the keys of ServerGuards, which is apart from the one of the inbox. */
export const idempotency: Migration = {
  version: 6,
  name: 'idempotency',
  statements: [
    // A key has a holder (it is locked), or a response, or neither: then it is revoked.
    `create table holdfast.idempotency_keys (
       service text collate "C" not null,
       key text collate "C" not null,
       holder text,
       response text,
       expires_at timestamptz not null,
       primary key (service, key),
       check (holder is null or response is null)
     )`,
    'create index idempotency_keys_expires_at on holdfast.idempotency_keys (expires_at)',
  ],
};
