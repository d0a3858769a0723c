import type { Migration } from './migration.ts';

/** Gives this database its id, by which the buses know its outbox. */
export const source: Migration = {
  version: 1,
  name: 'source',
  statements: [
    `create table holdfast.source (
       only_row boolean primary key default true check (only_row),
       id uuid not null default gen_random_uuid()
     )`,
    'insert into holdfast.source default values',
  ],
};
