#!/usr/bin/env node
import { run } from './run.ts';

/** Milliseconds after Ctrl-C in which what is under way may end; an answer that does not come is not waited for. */
const LAST_MOMENT = 500;

function interruption(): AbortSignal {
  const interrupted = new AbortController();
  process.once('SIGINT', () => {
    interrupted.abort();
    setTimeout(() => process.exit(0), LAST_MOMENT).unref();
  });
  return interrupted.signal;
}

// Nobody may be reading the complaints.
process.stderr.on('error', () => {});
const { env, stdout, stderr } = process;
process.exitCode = await run(process.argv.slice(2), { env, stdout, stderr, interruption });
