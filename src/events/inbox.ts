/** Remembers which events a group has handled. */
export interface Inbox<Tx = undefined> {
  /**
   * Runs the handler unless the group has handled the event; gives whether it ran. Where the inbox
   * has a transaction, that the event was handled is written in the transaction of the handler.
   *
   * @param group its name and its pattern, as `name/pattern`: two subscriptions of one name may both
   * get an event
   */
  process(group: string, eventId: string, handle: (tx: Tx) => unknown): Promise<boolean>;
}
