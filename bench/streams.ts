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
    const row = [sender, ...streamedCells(down), ...streamedCells(up)];
    if (isOurs(sender)) {
      const cancelled = await ask<Cancelled>({ sender, origin }, 'cancel');
      const { seconds, left, sockets, calls } = cancelled;
      rows.push([...row, seconds.toFixed(1), mib(left), String(sockets), String(calls)]);
      tooMuch.push(...excesses(down, up, cancelled).map((excess) => `${sender} ${excess}`));
    } else rows.push([...row, '', '', '', '']);
  }
  await server.end();
  const streamedHead = (way: string) => [`${way}: s`, 'MiB held', 'MiB RSS'];
  table(
    `1 GiB streamed, and ${CANCELLED.toLocaleString('en')} calls cancelled half way`,
    ['', ...streamedHead('down'), ...streamedHead('up'), 'cancelled: s', 'MiB left', 'sockets', 'calls'],
    rows,
  );
  for (const excess of tooMuch) console.error(excess);
  if (tooMuch.length > 0) process.exitCode = 1;
}

const isOurs = (sender: string) => sender.startsWith('**');
const mib = (bytes: number) => (bytes / MIB).toFixed(1);
const streamedCells = ({ seconds, held, resident }: Streamed) => [
  seconds.toFixed(1),
  mib(held),
  (resident / MIB).toFixed(0),
];

/** The figures that exceed their bounds. */
function excesses(down: Streamed, up: Streamed, { left, sockets, calls }: Cancelled): string[] {
  const most = mib(MAX_WHILE_STREAMING);
  return [
    down.held > MAX_WHILE_STREAMING && `holds ${mib(down.held)} MiB of a download, ${most} at most`,
    up.held > MAX_WHILE_STREAMING && `holds ${mib(up.held)} MiB of an upload, ${most} at most`,
    left > MAX_LEFT && `keeps ${mib(left)} MiB of cancelled calls, ${mib(MAX_LEFT)} at most`,
    sockets > 0 && `leaves ${sockets} sockets of cancelled calls open`,
    calls > 0 && `counts ${calls} cancelled calls as under way`,
  ].filter((excess) => excess !== false);
}

/**
 * In a process of its own, so that nothing is left of another. One that keeps its code: what the engine would drop of
 * it, some MiB of the loader's, would hide as much that is left of calls.
 */
async function ask<T>(sending: Sending, question: 'download' | 'upload' | 'cancel'): Promise<T> {
  const script = new URL('./streams/sending.ts', import.meta.url);
  const part = await Part.start(script, sending, ['--expose-gc', '--no-flush-bytecode']);
  const answer = await part.ask<T>(question);
  await part.end();
  return answer;
}
