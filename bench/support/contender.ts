/** The process of one contender: at each message it makes calls for a turn, and tells how many a second. */
import type { Contender } from './turns.ts';

const [module, name, argument, concurrency, turn] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];
/** Calls between two looks at the clock. */
const BATCH = 16;

const { contenders } = (await import(module)) as { contenders: Record<string, Contender> };
const call = contenders[name]!(argument);

async function callsPerSecond(): Promise<number> {
  let done = 0;
  const startedAt = performance.now();
  const worker = async () => {
    while (performance.now() < startedAt + Number(turn)) {
      for (let index = 0; index < BATCH; index++) await call();
      done += BATCH;
    }
  };
  await Promise.all(Array.from({ length: Number(concurrency) }, worker));
  return (done / (performance.now() - startedAt)) * 1000;
}

process.on('message', async () => process.send!(await callsPerSecond()));
process.on('disconnect', () => process.exit());
process.send!('ready');
