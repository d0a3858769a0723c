import { inventoryRoutes } from './inventory-service.ts';
import { notificationRoutes } from './notification-service.ts';
import { orderRoutes } from './order-service.ts';
import { paymentRoutes } from './payment-service.ts';
import type { Routes } from './service.ts';
import { userRoutes } from './user-service.ts';

export const SERVICES: Readonly<Record<string, Routes>> = {
  'user-service': userRoutes,
  'order-service': orderRoutes,
  'payment-service': paymentRoutes,
  'inventory-service': inventoryRoutes,
  'notification-service': notificationRoutes,
};
