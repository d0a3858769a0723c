import { CANCELLED, MAX_LEFT, MAX_WHILE_STREAMING, MIB } from './streams/amounts.ts';
import { senders } from './streams/senders.ts';
import type { Cancelled, Sending, Streamed } from './streams/sending.ts';
import { table } from './support/measure.ts';
import { Part } from './support/part.ts';

/**
 * How much of 1 GiB a client holds at a time, down and up, and what calls leave behind that are cancelled half way.
 * Fails if ours hold or leave more than they may.
 */
export async function streams(): Promise<void> {
  const server = await Part.start(new URL('./streams/server.ts', import.meta.url), null);
  const origin = `http://127.0.0.1:${await server.ask<number>('port')}`;
  const tooMuch: string[] = [];
  const rows: string[][] = [];
  for (const sender of Object.keys(senders)) {
    const down = await ask<Streamed>({ sender, origin }, 'download');
    const up = await ask<Streamed>({ sender, origin }, 'upload');
    const streamed = [down.seconds.toFixed(1), mib(down.growth), up.seconds.toFixed(1), mib(up.growth)];
    if (!isOurs(sender)) {
      rows.push([sender, ...streamed, '', '', '']);
      continue;
    }
    const cancelled = await ask<Cancelled>({ sender, origin }, 'cancel');
    const { seconds, growth, sockets } = cancelled;
    rows.push([sender, ...streamed, seconds.toFixed(1), mib(growth), String(sockets)]);
    if (Math.max(down.growth, up.growth) > MAX_WHILE_STREAMING) {
      tooMuch.push(`${sender} holds more than ${mib(MAX_WHILE_STREAMING)} MiB of a stream`);
    }
    if (growth > MAX_LEFT || sockets > 0)
      tooMuch.push(`${sender} keeps something of calls that are cancelled`);
  }
  await server.end();
  table(
    `1 GiB streamed, and ${CANCELLED.toLocaleString('en')} calls cancelled half way`,
    ['', 'down: s', 'MiB held', 'up: s', 'MiB held', 'cancelled: s', 'MiB left', 'sockets left'],
    rows,
  );
  for (const sender of tooMuch)
    console.error(`${sender} takes more memory than it may, or leaves sockets open`);
  if (tooMuch.length > 0) process.exitCode = 1;
}

const isOurs = (sender: string) => sender.startsWith('**');
const mib = (bytes: number) => (bytes / MIB).toFixed(1);

/** In a process of its own, so that nothing is left of another. */
async function ask<T>(sending: Sending, question: 'download' | 'upload' | 'cancel'): Promise<T> {
  const part = await Part.start(new URL('./streams/sending.ts', import.meta.url), sending, ['--expose-gc']);
  const answer = await part.ask<T>(question);
  await part.end();
  return answer;
}
