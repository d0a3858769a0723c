#!/usr/bin/env node
import { run } from './run.ts';

/** Milliseconds after Ctrl-C within which the command has to end: a response may never come. */
const EXIT_TIMEOUT = 500;

function interruption(): AbortSignal {
  const interrupted = new AbortController();
  process.once('SIGINT', () => {
    interrupted.abort();
    setTimeout(() => process.exit(0), EXIT_TIMEOUT).unref();
  });
  return interrupted.signal;
}

/** A server ends by itself once it is told to; a second signal ends it at once. */
function termination(): AbortSignal {
  const told = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => told.abort());
  return told.signal;
}

// The reader of standard error may be gone.
process.stderr.on('error', () => {});
const { env, stdout, stderr } = process;
process.exitCode = await run(process.argv.slice(2), { env, stdout, stderr, interruption, termination });
