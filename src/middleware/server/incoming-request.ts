/** A request as a ServerGuard sees it, whichever framework it came through. */
export interface IncomingRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** By lower-case names, as node:http gives them. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export function pathOf(target: string): string {
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
}
