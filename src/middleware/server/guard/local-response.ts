/** An answer that a ServerGuard gives by itself: the handler is not called. */
export interface ReadyAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: string | Uint8Array;
}
