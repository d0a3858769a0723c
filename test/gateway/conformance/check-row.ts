import { expect } from 'vitest';
import { Connection } from './connection.ts';
import type { RecordingService } from './recording-service.ts';
import { get, type Outcome, received } from './row.ts';

const NEXT = get('/next');
const NEXT_RECEIVED = received('GET /next');

/**
 * Sends the bytes of a row, then a harmless request: over the same connection if that must go on, else
 * over another one. What the service has received up to the end of the second is all that it gets.
 *
 * @returns what the client has received
 */
export async function checkRow(
  url: string,
  service: RecordingService,
  sent: string,
  outcome: Outcome,
): Promise<string> {
  service.reset();
  const connection = await Connection.open(url);
  connection.send(sent);
  await connection.waitForResponses(outcome.statuses.length);
  if (outcome.after === 'ends') await connection.waitForEnd();
  const next = outcome.after === 'goes on' ? connection : await Connection.open(url);
  const before = next.statuses.length;
  next.send(NEXT);
  await next.waitForResponses(before + 1);
  const { statuses, ended } = connection;
  connection.close();
  next.close();
  expect(statuses).toEqual(outcome.after === 'goes on' ? [...outcome.statuses, 200] : outcome.statuses);
  expect(ended).toBe(outcome.after === 'ends');
  if (outcome.brokenOff) checkBrokenOff(service.received, outcome.bytes);
  else expect(inOrder(service.received.join(''))).toBe(inOrder(outcome.bytes + NEXT_RECEIVED));
  return connection.received;
}

/** Checks that the body has no end, and that nothing came after it on its connection. */
function checkBrokenOff(received: readonly string[], begin: string): void {
  expect(received).toContain(NEXT_RECEIVED);
  for (const bytes of received) {
    if (bytes === NEXT_RECEIVED) continue;
    expect(bytes.startsWith(begin)).toBe(true);
    expect(bytes).not.toMatch(/0\r\n\r\n$|\/next/);
  }
}

/** Requests that came one right after another reach the service in any order. */
function inOrder(bytes: string): string {
  return bytes
    .split(/(?<![A-Z])(?=[A-Z]+ \S+ HTTP\/1\.1\r\n)/)
    .sort()
    .join('');
}
