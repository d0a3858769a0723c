import { describe, expect, it } from 'vitest';
import { checkRow } from './check-row.ts';
import { useGateways } from './gateways.ts';
import { BY_PARSER, type Outcome, type Row } from './row.ts';
import { CHUNKS } from './rows/chunks.ts';
import { EXPECTATIONS } from './rows/expectations.ts';
import { FRAMING } from './rows/framing.ts';
import { HOSTS } from './rows/hosts.ts';
import { LINES } from './rows/lines.ts';
import { METHODS } from './rows/methods.ts';
import { NAMES } from './rows/names.ts';
import { PATHS } from './rows/paths.ts';
import { PIPELINES } from './rows/pipelines.ts';
import { SIZES } from './rows/sizes.ts';
import { TARGETS } from './rows/targets.ts';
import { WEBSOCKETS } from './rows/websockets.ts';

const TABLE: readonly Row[] = [
  FRAMING,
  CHUNKS,
  LINES,
  HOSTS,
  TARGETS,
  PATHS,
  METHODS,
  EXPECTATIONS,
  NAMES,
  SIZES,
  PIPELINES,
  WEBSOCKETS,
].flat();

const running = useGateways();

describe('a gateway', () => {
  for (const [name, sent, outcome] of TABLE) {
    it(`${verbOf(outcome)} ${name}`, async () => {
      const received = await checkRow(running.server, running.service, sent, outcome);
      if (outcome.statuses[0]! >= 400) {
        expect(received).toMatch(/^x-request-id: [\da-f-]{36}\r$/m);
        expect(received).toMatch(/^content-type: application\/problem\+json\r$/m);
      }
      if (outcome === BY_PARSER) expect(received).toContain('"detail":"The request is not valid HTTP."');
    });
  }
});

describe('the plugin in an app', () => {
  for (const [name, sent, outcome, own = outcome] of TABLE) {
    it(`${verbOf(own)} ${name}`, async () => {
      await checkRow(running.plugin, running.service, sent, own);
    });
  }
});

function verbOf({ by, statuses, after }: Outcome): string {
  if (by === 'service') return 'forwards';
  if (statuses.length === 0 && after === 'waits') return 'waits for the rest of';
  return statuses[0]! < 400 ? 'responds by itself to' : 'rejects';
}
