import { describe, expect, it } from 'vitest';
import { Connection } from './connection.ts';
import { useGateways } from './gateways.ts';
import { CORS } from './rows/cors.ts';

const running = useGateways({ cors: { origins: ['https://shop.example'], credentials: true } });

/** A service that lets all origins in: the gateway has to decide. */
const REPLY =
  'HTTP/1.1 200 OK\r\ncontent-length: 2\r\naccess-control-allow-origin: *\r\naccess-control-allow-methods: *\r\n\r\nok';

describe.each(['server', 'plugin'] as const)('as a %s, a gateway with one origin', (form) => {
  for (const [name, sent, status, lines, called] of CORS) {
    it(`responds with ${status} to ${name}`, async () => {
      running.service.reset(REPLY);
      const connection = await Connection.open(running[form]);
      connection.send(sent);
      await connection.waitForResponses(1);
      connection.close();
      expect(connection.statuses).toEqual([status]);
      expect(connection.received.match(/^(access-control-|vary:).*$/gim)?.sort()).toEqual([...lines].sort());
      expect(running.service.received.length > 0).toBe(called);
    });
  }
});
