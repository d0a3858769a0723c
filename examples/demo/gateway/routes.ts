import type { RouteOptions } from '../../../src/gateway/index.ts';

/** The scope of the clerks, who bring items to the stock and change the data of customers. */
export const DESK = 'desk';
/** The scope of the cashiers. */
export const PAY = 'pay';

const clerks = { scopes: [DESK] };
const cashiers = { scopes: [PAY] };

/**
 * The ways from outside to the services. Each needs a token, unless it has `auth: false`. The steps of
 * the saga (`PUT /orders/…`) and the mails are on no route: they are for services alone.
 */
export const ROUTES: readonly RouteOptions[] = [
  { path: '/api/v1/users', methods: ['POST'], service: 'user-service', rewrite: '/users', auth: false },
  {
    path: '/api/v1/users/:userId',
    methods: ['GET'],
    service: 'user-service',
    rewrite: '/users/:userId',
    rateLimit: { limit: 20, interval: 60_000, by: 'claim:sub' },
  },
  {
    path: '/api/v1/users/:userId',
    methods: ['PATCH', 'DELETE'],
    service: 'user-service',
    rewrite: '/users/:userId',
    auth: clerks,
  },
  {
    path: '/api/v1/users/:userId/deactivate',
    methods: ['POST'],
    service: 'user-service',
    rewrite: '/users/:userId/deactivate',
    auth: clerks,
  },
  {
    path: '/api/v1/orders',
    methods: ['GET', 'POST'],
    service: 'order-service',
    rewrite: '/orders',
    timeout: 5_000,
  },
  {
    path: '/api/v1/orders/:orderId',
    methods: ['GET'],
    service: 'order-service',
    rewrite: '/orders/:orderId',
  },
  {
    path: '/api/v1/orders/:orderId/cancel',
    methods: ['POST'],
    service: 'order-service',
    rewrite: '/orders/:orderId/cancel',
    auth: clerks,
  },
  {
    path: '/api/v1/payments',
    methods: ['POST'],
    service: 'payment-service',
    rewrite: '/charges',
    auth: cashiers,
    idempotencyKeys: true,
  },
  {
    path: '/api/v1/payments/refunds',
    methods: ['POST'],
    service: 'payment-service',
    rewrite: '/refunds',
    auth: cashiers,
    idempotencyKeys: true,
  },
  { path: '/api/v1/inventory/*', service: 'inventory-service', rewrite: '/*', auth: clerks },
];
