import type { ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { type Handler, json } from './server.ts';

/** Responds with the request that it received. */
export const echo: Handler = async (request, response) => {
  const { method, url, headers } = request;
  json(response, { method, url, headers, body: await text(request) });
};

/**
 * Responds with the given statuses in turn, then 200. The body is made of the status and the number
 * of the request.
 */
export function inTurn(list: number[], body: (status: number, number: number) => unknown): Handler {
  let number = 0;
  return (request, response) => {
    request.resume();
    const status = list.shift() ?? 200;
    json(response, body(status, ++number), status);
  };
}

/** Responds with the given statuses in turn, then 200, and always with the same body. */
export function statuses(...list: number[]): Handler {
  return inTurn(list, () => ({ ok: true }));
}

/** Sends as much as its reader takes, and counts it. */
export function flood(
  response: ServerResponse,
  count: (bytes: number) => void,
  chunk = Buffer.alloc(65_536),
): void {
  const more = () => {
    while (!response.destroyed) {
      count(chunk.length);
      if (!response.write(chunk)) return;
    }
  };
  response.on('drain', more);
  more();
}
