export interface Charge {
  readonly orderId: string;
  readonly email: string;
  readonly amount: number;
  readonly status: 'succeeded' | 'failed' | 'refunded';
}

/** Keeps the charges, one for each order. */
export interface ChargeRepository {
  add(charge: Charge): Promise<void>;
  /** Gives the charge if there was one to refund, and it was not refunded before. */
  refund(orderId: string): Promise<Charge | undefined>;
}
