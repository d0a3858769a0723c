import type { ReservationData } from '../events.ts';

/** Keeps what is reserved, by order. */
export interface ReservationRepository {
  add(reservation: ReservationData): Promise<void>;
  /** Gives whether there was one. */
  delete(orderId: string): Promise<boolean>;
}
