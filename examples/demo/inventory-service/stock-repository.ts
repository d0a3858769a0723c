/** Keeps how many of each item are there and not reserved. */
export interface StockRepository {
  add(item: string, quantity: number): Promise<void>;
  /** Gives whether there were enough; if not, nothing is taken. */
  take(item: string, quantity: number): Promise<boolean>;
}
