import { randomBytes } from 'node:crypto';
import { Rejection } from '../problem.ts';

/** Creates the name of a gateway in `Via`. Each has another one, by which it knows its requests again. */
export function createViaName(): string {
  return `holdfast-${randomBytes(6).toString('hex')}`;
}

/**
 * Adds a gateway to the `Via` of a request: RFC 9110, section 7.6.3.
 *
 * @param received what came in; empty if nothing did
 * @throws Rejection if the request has passed this gateway before
 */
export function extendVia(received: string, version: string, name: string): string {
  const own = `${version} ${name}`;
  if (received === '') return own;
  for (const entry of received.split(',')) {
    if (entry.trim().split(/[ \t]+/)[1] === name)
      throw new Rejection(508, 'loop-detected', 'The request has passed the gateway before.');
  }
  return `${received}, ${own}`;
}
