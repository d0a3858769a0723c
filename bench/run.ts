import { clients } from './clients.ts';
import { discovery } from './discovery.ts';
import { events } from './events.ts';
import { gateway } from './gateway.ts';
import { picks } from './picks.ts';
import { policies } from './policies.ts';
import { sagas } from './sagas.ts';
import { streams } from './streams.ts';

const BENCHMARKS: Record<string, () => Promise<void>> = {
  policies,
  clients,
  streams,
  picks,
  discovery,
  events,
  sagas,
  gateway,
};

const names = process.argv.slice(2);
const unknown = names.find((name) => !Object.hasOwn(BENCHMARKS, name));
if (unknown !== undefined) {
  console.error(
    `no benchmark '${unknown}': choose from ${Object.keys(BENCHMARKS).join(', ')}, or none for all`,
  );
  process.exitCode = 1;
} else {
  for (const name of names.length > 0 ? names : Object.keys(BENCHMARKS)) await BENCHMARKS[name]!();
}
