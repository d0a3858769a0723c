import type { Kysely } from 'kysely';
import type { Mail, MailRepository } from './mail-repository.ts';
import type { MailTables } from './mail-tables.ts';

export class PostgresMailRepository implements MailRepository {
  readonly #db: Kysely<MailTables>;

  constructor(db: Kysely<MailTables>) {
    this.#db = db;
  }

  async add({ to, text }: Mail): Promise<void> {
    await this.#db.insertInto('mails').values({ recipient: to, text }).execute();
  }
}
