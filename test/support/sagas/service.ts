/**
 * A process that is the services of a shop, or one of them: each effect is in one transaction with its key. It can die
 * by SIGKILL before or after one of its statements.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { flushCompileCache } from 'node:module';
import { json } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import pg from 'pg';
import { KeyRevokedError } from '../../../src/errors.ts';
import { nodeGuard } from '../../../src/middleware/server/frameworks/node-http.ts';
import type { Transaction } from '../../../src/postgres/database.ts';
import { fromPg } from '../../../src/postgres/from-pg.ts';
import { PostgresIdempotencyStore } from '../../../src/postgres/postgres-idempotency-store.ts';
import { PostgresInbox } from '../../../src/postgres/postgres-inbox.ts';
import type { Death } from '../events/deaths.ts';
import { dieAt, faultyDatabase } from '../faults.ts';
import type { Effect, Order, Undoing } from './order-saga.ts';

export interface ServiceOptions {
  readonly postgres: string;
  readonly port: number;
  /** Milliseconds that each request waits when it is here, and before it has its effect. */
  readonly delay: number;
  /** Default: it lives. */
  readonly death?: Death;
}

/** The balance that an effect takes from, and its undoing gives back to. */
const BALANCES = {
  ...{ reserve: 'stock', charge: 'account', create: 'orders', confirm: 'mails' },
  ...{ release: 'stock', refund: 'account', cancel: 'orders' },
} as const satisfies Record<Effect | Undoing, string>;

const { postgres, port, delay, death } = JSON.parse(process.argv[2]!) as ServiceOptions;
const pool = new pg.Pool({ connectionString: postgres, max: 10 });
pool.on('error', () => {});
const die = () => process.kill(process.pid, 'SIGKILL');
const { fault } = dieAt(death?.at ?? Infinity, death?.side ?? 'before', die);
let statements = 0;
const database = faultyDatabase(fromPg(pool), (step, when) => {
  if (when === 'before') statements++;
  return fault(step, when);
});
const inbox = new PostgresInbox({ database });
const idempotency = {
  store: new PostgresIdempotencyStore({ database, service: 'shop' }),
  scope: () => 'shop',
  lockTimeout: 500,
};
const guarded = nodeGuard({ idempotency }, handle);

process.on('disconnect', () => process.exit());
// It is asked how many statements it has sent.
process.on('message', () => process.send!(statements));
const server = createServer(async (request, response) => {
  try {
    await pool.query('insert into requests (key) values ($1)', [request.headers['idempotency-key']]);
    await guarded(request, response);
  } catch {
    // Its caller has died before all of it was here.
    response.destroy();
  }
});
server.listen(port, '127.0.0.1', () => {
  // It does not live to do so at its end: the next one starts in half of the time.
  flushCompileCache();
  process.send!('ready');
});

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const effect = request.url!.slice(1) as Effect | Undoing;
  const order = (await json(request)) as Order;
  await setTimeout(delay);
  const { 'idempotency-key': key, 'compensates-key': compensates } = request.headers;
  if (effect === 'create' && order.rejected) {
    respond(response, 422, { reason: 'rejected' });
    return;
  }
  try {
    const result =
      compensates === undefined
        ? await invoke(effect as Effect, order, key as string)
        : await undo(effect as Undoing, order, key as string, compensates as string);
    respond(response, 200, result);
  } catch (error) {
    respond(response, error instanceof KeyRevokedError ? 409 : 500, { reason: String(error) });
  }
}

function invoke(effect: Effect, order: Order, key: string): Promise<{ amount: number }> {
  return inbox.once(key, async (tx) => {
    const amounts = { reserve: order.quantity, charge: order.total, create: 1, confirm: 1 };
    const amount = amounts[effect];
    await move(tx, effect, order, -amount);
    return { amount };
  });
}

function undo(undoing: Undoing, order: Order, key: string, compensates: string): Promise<{ seen: boolean }> {
  return inbox.once(key, async (tx) => {
    const { seen, result } = await inbox.revoke(compensates, tx);
    if (seen) await move(tx, undoing, order, (result as { amount: number }).amount);
    return { seen };
  });
}

async function move(tx: Transaction, effect: Effect | Undoing, { orderId }: Order, amount: number) {
  const balance = BALANCES[effect];
  await tx.query('update balances set amount = amount + $1 where name = $2', [amount, balance]);
  await tx.query('insert into effects (order_id, effect) values ($1, $2)', [orderId, effect]);
}

function respond(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
