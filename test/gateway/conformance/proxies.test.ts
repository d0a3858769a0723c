import { describe, it } from 'vitest';
import { checkRow } from './check-row.ts';
import { useGateways } from './gateways.ts';
import { PROXIES } from './rows/proxies.ts';

const running = useGateways({ trustedProxies: ['127.0.0.1', '10.0.0.0/8'] });

describe.each(['server', 'plugin'] as const)('as a %s, a gateway behind a trusted proxy', (form) => {
  for (const [name, sent, outcome] of PROXIES) {
    it(`takes ${name}`, async () => {
      await checkRow(running[form], running.service, sent, outcome);
    });
  }
});
