import { email, exactly, id, line } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase } from '../service-database.ts';
import { PostgresUserRepository } from './postgres-user-repository.ts';
import type { NewUser, User, UserChanges } from './user-repository.ts';
import { type UserTables, userMigrations } from './user-tables.ts';

const name = line(100);
const params = exactly({ id });
const newUser = exactly({ id, email, name });
/** PostgreSQL counts no further in an integer. */
const MAX_VERSION = 2 ** 31 - 2;
/** The version is the one that the caller has seen. The repository checks which fields there are. */
const update = {
  type: 'object',
  required: ['version'],
  properties: { version: { type: 'integer', minimum: 1, maximum: MAX_VERSION }, email, name },
};

interface ById {
  Params: { id: string };
}

export async function startUserService(context: ServiceContext): Promise<void> {
  const { app } = context;
  const { db, database, outbox } = await openDatabase<UserTables>(context, userMigrations);
  const users = new PostgresUserRepository(db);

  app.get<ById>('/users/:id', { schema: { params } }, ({ params }) => users.get(params.id));

  app.post<{ Body: NewUser }>('/users', { schema: { body: newUser } }, async ({ body }, reply) => {
    reply.code(201);
    return database.transaction(async (tx) => {
      const user = await new PostgresUserRepository(tx.raw).create(body);
      const data = { userId: user.id, email: user.email, name: user.name };
      await outbox.publish({ eventType: 'user.created', aggregateId: user.id, data }, tx);
      return user;
    });
  });

  app.patch<ById & { Body: UserChanges & { version: number } }>(
    '/users/:id',
    { schema: { params, body: update } },
    ({ params, body: { version, ...changes } }) =>
      change((repository) => repository.update(params.id, changes, version)),
  );

  app.post<ById>('/users/:id/deactivate', { schema: { params } }, ({ params }) =>
    change((repository) => repository.deactivate(params.id)),
  );

  app.delete<ById>('/users/:id', { schema: { params } }, async ({ params }, reply) => {
    await database.transaction(async (tx) => {
      await new PostgresUserRepository(tx.raw).delete(params.id);
      const data = { userId: params.id };
      await outbox.publish({ eventType: 'user.deleted', aggregateId: params.id, data }, tx);
    });
    return reply.code(204).send();
  });

  /** Changes a user, and tells of it, in one transaction. */
  function change(apply: (repository: PostgresUserRepository) => Promise<User>): Promise<User> {
    return database.transaction(async (tx) => {
      const user = await apply(new PostgresUserRepository(tx.raw));
      const data = { userId: user.id, email: user.email, name: user.name, active: user.active };
      await outbox.publish({ eventType: 'user.updated', aggregateId: user.id, data }, tx);
      return user;
    });
  }
}
