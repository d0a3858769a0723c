import { randomBytes } from 'node:crypto';
import { Rejection } from '../problem.ts';

/** Creates the name of a gateway in `Via`. Each has another one, by which it knows its requests again. */
export function createViaName(): string {
  return `holdfast-${randomBytes(6).toString('hex')}`;
}

/**
 * How often a request may pass a gateway: a service behind it may forward the headers of a request with a
 * call to another route, and so may the service that is called then.
 */
const MAX_PASSES = 3;

/**
 * Adds a gateway to the `Via` of a request: RFC 9110, section 7.6.3.
 *
 * @param received what came in; empty if nothing did
 * @throws Rejection if the request has passed this gateway too often
 */
export function extendVia(received: string, version: string, name: string): string {
  const own = `${version} ${name}`;
  if (received === '') return own;
  const passes = received.split(',').filter((entry) => entry.trim().split(/[ \t]+/)[1] === name).length;
  if (passes >= MAX_PASSES)
    throw new Rejection(508, 'loop-detected', `The request has passed the gateway ${passes} times.`);
  return `${received}, ${own}`;
}
