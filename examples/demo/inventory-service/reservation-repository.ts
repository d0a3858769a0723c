import type { ReservationData } from '../events.ts';

/** Keeps what is reserved, by order. */
export interface ReservationRepository {
  add(reservation: ReservationData): Promise<void>;
  /** Gives the reservation that there was. */
  delete(orderId: string): Promise<ReservationData | undefined>;
}
