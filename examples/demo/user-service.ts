import type { Routes } from './service.ts';

const USERS = new Map(['ada', 'grace', 'edsger'].map((id) => [id, { id, email: `${id}@example.com` }]));

export const userRoutes: Routes = (app) => {
  app.get<{ Params: { id: string } }>('/users/:id', async (request, reply) => {
    return USERS.get(request.params.id) ?? reply.code(404).send({ error: 'no such user' });
  });
};
