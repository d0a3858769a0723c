import type { ServerGuardOptions } from '../../src/index.ts';
import { startInventoryService } from './inventory-service/inventory-service.ts';
import { startNotificationService } from './notification-service/notification-service.ts';
import { identifyCustomers } from './order-service/customers.ts';
import { startOrderService } from './order-service/order-service.ts';
import { startPaymentService } from './payment-service/payment-service.ts';
import type { ServiceContext } from './service.ts';
import { startUserService } from './user-service/user-service.ts';

/** Adds the routes of a service to an app, and subscribes it to events. */
export const SERVICES: Readonly<Record<string, (context: ServiceContext) => Promise<void>>> = {
  'user-service': startUserService,
  'order-service': startOrderService,
  'payment-service': startPaymentService,
  'inventory-service': startInventoryService,
  'notification-service': startNotificationService,
};

/** Tells, with the keys of the gateway, for whom a request is made, where a service has to know it. */
export const IDENTIFIERS: Readonly<Record<string, (gatewayKeys: string) => ServerGuardOptions['identity']>> =
  { 'order-service': identifyCustomers };
