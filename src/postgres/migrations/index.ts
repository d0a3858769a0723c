import { source } from './0001-source.ts';
import { inbox } from './0002-inbox.ts';
import { outbox } from './0003-outbox.ts';
import { eventStore } from './0004-event-store.ts';
import { sagas } from './0005-sagas.ts';
import { idempotency } from './0006-idempotency.ts';
import type { Migration } from './migration.ts';

/** All migrations, by their version. */
export const MIGRATIONS: readonly Migration[] = [source, inbox, outbox, eventStore, sagas, idempotency];
