import { randomUUID } from 'node:crypto';
import type { Executor } from './database.ts';

/** Whether a lease is held. One that ends too late was given before the clock was set back. */
const IS_HELD = 'clock_timestamp() between l.until - l.duration and l.until';

interface HeldLease {
  readonly token: string;
  /** When it runs out, on the clock of `performance.now()`, reckoned from before it was asked for. */
  until: number;
}

/**
 * LeaseHolder of one process in the table of leases. Each name has one holder at a time by the clock of
 * the database, and each holder another token, a higher one than those before. Since they are rows,
 * they need no connection of their own.
 */
export class LeaseHolder {
  /** The name of this holder among all. */
  readonly id = randomUUID();
  readonly #database: Executor;
  readonly #duration: number;
  readonly #held = new Map<string, HeldLease>();

  /** @param duration milliseconds for which a lease is held unless it is renewed */
  constructor(database: Executor, duration: number) {
    this.#database = database;
    this.#duration = duration;
  }

  /** Whether a lease is held by this process, and has not run out. */
  isHeld(name: string): boolean {
    const lease = this.#held.get(name);
    return lease !== undefined && performance.now() < lease.until;
  }

  /** Gives the token of a lease; undefined if it was lost or released. */
  tokenOf(name: string): string | undefined {
    return this.#held.get(name)?.token;
  }

  /** Takes free leases of these names, at most `limit`; gives the names that it took. */
  async acquire(names: readonly string[], limit = names.length): Promise<string[]> {
    const until = performance.now() + this.#duration;
    const { rows } = await this.#database.query(ACQUIRE, [names, this.id, this.#duration, limit]);
    for (const { name, token } of rows) this.#held.set(name, { token, until });
    return rows.map(({ name }) => name);
  }

  /** Renews all leases; gives the names of those that were lost to another process. */
  async renew(): Promise<string[]> {
    const until = performance.now() + this.#duration;
    const leases = [...this.#held];
    const names = leases.map(([name]) => name);
    const { rows } = await this.#database.query(RENEW, [names, leases.map(([, { token }]) => token)]);
    const renewed = new Set(rows.map(({ name }) => name));
    for (const [name, lease] of leases) if (renewed.has(name)) lease.until = until;
    const lost = names.filter((name) => !renewed.has(name));
    for (const name of lost) this.#held.delete(name);
    return lost;
  }

  /** Gives leases up, so that others need not wait until they run out. */
  async release(names: readonly string[] = [...this.#held.keys()]): Promise<void> {
    const released = names.filter((name) => this.#held.has(name));
    const tokens = released.map((name) => this.#held.get(name)!.token);
    for (const name of released) this.#held.delete(name);
    await this.#database.query(RELEASE, [released, tokens]);
  }

  /** Lists the leases that are held, by whatever processes, and whose names begin so. */
  async list(prefix: string): Promise<string[]> {
    const sql = `select name from holdfast.leases l where starts_with(name, $1) and ${IS_HELD} order by name`;
    const { rows } = await this.#database.query(sql, [prefix]);
    return rows.map(({ name }) => name);
  }
}

const ACQUIRE = `
  insert into holdfast.leases as l (name, holder, token, duration, until)
  select w.name, $2, 1, $3 * interval '1 ms', clock_timestamp() + $3 * interval '1 ms'
  from unnest($1::text[]) as w (name)
  where not exists (select 1 from holdfast.leases l where l.name = w.name and ${IS_HELD})
  order by w.name
  limit $4
  on conflict (name) do update set holder = excluded.holder, token = l.token + 1,
    duration = excluded.duration, until = excluded.until
    where not (${IS_HELD})
  returning name, token::text`;

const RENEW = `
  update holdfast.leases l set until = clock_timestamp() + l.duration
  from unnest($1::text[], $2::bigint[]) as h (name, token)
  where l.name = h.name and l.token = h.token
  returning l.name`;

const RELEASE = `
  update holdfast.leases l set until = '-infinity'
  from unnest($1::text[], $2::bigint[]) as h (name, token)
  where l.name = h.name and l.token = h.token`;
