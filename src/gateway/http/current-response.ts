import type { ServerResponse } from 'node:http';

/**
 * Gives the response that is due next on a connection of HTTP/1; undefined if none is. Node itself finds it
 * by this field, and has no other way to ask.
 */
export function currentResponse(socket: object): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse | null | undefined })._httpMessage ?? undefined;
}
