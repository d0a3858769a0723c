import { describe, expect, it } from 'vitest';
import { Connection } from './connection.ts';
import { useGateways } from './gateways.ts';
import { get } from './row.ts';
import { RESPONSES, type ResponseOutcome } from './rows/responses.ts';

const running = useGateways();

describe.each(['server', 'plugin'] as const)('as a %s, a gateway', (form) => {
  for (const [name, sent, outcome, cut] of RESPONSES) {
    it(`${verbOf(outcome)} ${name}`, async () => {
      const { service } = running;
      service.reset((socket) => void (cut ? socket.end(sent, 'latin1') : socket.write(sent, 'latin1')));
      const connection = await Connection.open(running[form]);
      connection.send(get('/a'));
      await connection.waitForResponses(1);
      if (outcome.kind === 'broken') {
        await connection.waitForEnd();
        expect(connection.ended).toBe(true);
        expect(isWhole(connection.received)).toBe(false);
      }
      service.reset();
      const next = outcome.kind === 'broken' ? await Connection.open(running[form]) : connection;
      const before = next.received.length;
      next.send(get('/next'));
      await next.waitFor(/\r\n\r\nok$/, before);
      const first = mask(connection.received.slice(0, before || undefined));
      expect(next.received.slice(before)).toMatch(/^HTTP\/1\.1 200 OK\r\n(.+\r\n)+\r\nok$/);
      if (outcome.kind === 'whole') expect(first).toBe(outcome.bytes);
      if (outcome.kind === 'problem') checkProblem(first, outcome.status);
      connection.close();
      next.close();
    });
  }
});

function verbOf({ kind }: ResponseOutcome): string {
  if (kind === 'whole') return 'passes on';
  return kind === 'broken' ? 'breaks off at' : 'responds with a problem to';
}

function checkProblem(response: string, status: number): void {
  expect(response).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  expect(response).toMatch(/\r\n\r\n\{"type":"urn:holdfast:problem:bad-gateway",[^}]+\}$/);
  expect(response).not.toContain('127.0.0.1');
}

/** Whether a client would take what it has received for a whole response. */
function isWhole(received: string): boolean {
  const end = received.indexOf('\r\n\r\n');
  if (end === -1) return false;
  const head = received.slice(0, end);
  const body = received.slice(end + 4);
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
  return length === undefined ? body.endsWith('0\r\n\r\n') : body.length >= Number(length);
}

/** Replaces what differs from one response to the next. */
function mask(response: string): string {
  return response.replace(/(x-request-id: )[\da-f-]{36}/, '$1ID').replace(/^date: .+\r$/im, 'Date: DATE\r');
}
