/** A response that the process gives by itself, as Envoy's local replies: no handler is called. */
export interface LocalResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: string | Uint8Array;
}
