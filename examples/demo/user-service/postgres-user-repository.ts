import { type Kysely, sql } from 'kysely';
import { ConflictError, InvalidError, NotFoundError } from '../errors.ts';
import type { NewUser, User, UserChanges, UserRepository } from './user-repository.ts';
import type { UserTables } from './user-tables.ts';

const CHANGEABLE: ReadonlySet<string> = new Set<keyof UserChanges>(['email', 'name']);

export class PostgresUserRepository implements UserRepository {
  readonly #db: Kysely<UserTables>;

  /** @param db a database, or a transaction, which all that the repository does is part of then */
  constructor(db: Kysely<UserTables>) {
    this.#db = db;
  }

  async create({ id, email, name }: NewUser): Promise<User> {
    const user = await this.#db
      .insertInto('users')
      .values({ id, email, name, active: true, version: 1 })
      .onConflict((conflict) => conflict.doNothing())
      .returningAll()
      .executeTakeFirst();
    if (user === undefined) throw new ConflictError(`there is a user '${id}' already`);
    return user;
  }

  async get(id: string): Promise<User> {
    const user = await this.#db.selectFrom('users').selectAll().where('id', '=', id).executeTakeFirst();
    return user ?? notFound(id);
  }

  async update(id: string, changes: UserChanges, version: number): Promise<User> {
    rejectUnknownFields(changes);
    const user = await this.#db
      .updateTable('users')
      .set({ ...changes, version: version + 1 })
      .where('id', '=', id)
      .where('version', '=', version)
      .returningAll()
      .executeTakeFirst();
    if (user !== undefined) return user;
    const current = await this.get(id);
    throw new ConflictError(`the user '${id}' has version ${current.version} by now, not ${version}`);
  }

  async deactivate(id: string): Promise<User> {
    const user = await this.#db
      .updateTable('users')
      .set({ active: false, version: sql`version + 1` })
      .where('id', '=', id)
      .returningAll()
      .executeTakeFirst();
    return user ?? notFound(id);
  }

  async delete(id: string): Promise<void> {
    const { numDeletedRows } = await this.#db.deleteFrom('users').where('id', '=', id).executeTakeFirst();
    if (numDeletedRows === 0n) notFound(id);
  }
}

/** A caller must not be able to set just any column, such as `active`. */
function rejectUnknownFields(changes: UserChanges): void {
  const unknown = Object.keys(changes).filter((field) => !CHANGEABLE.has(field));
  if (unknown.length === 0) return;
  const issues = unknown.map((field) => ({
    pointer: `/${field}`,
    detail: 'is no field that can be changed',
  }));
  throw new InvalidError('a user has no such fields to change', issues);
}

function notFound(id: string): never {
  throw new NotFoundError(`there is no user '${id}'`);
}
