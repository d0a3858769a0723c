import type { EventBus } from '../../src/events/event-bus.ts';
import { deferred } from '../../src/internal/deferred.ts';
import type { Database, Executor } from '../../src/postgres/index.ts';

/** Decides before and after each step of a process whether it goes on, waits, or fails. */
export type Fault = (step: string, when: 'before' | 'after') => Promise<void> | void;

/** A database whose process dies, or freezes, at some statement, or at the beginning or end of a transaction. */
export function faultyDatabase(database: Database, fault: Fault): Database {
  const step = async <T>(name: string, run: () => Promise<T>): Promise<T> => {
    await fault(name, 'before');
    const result = await run();
    await fault(name, 'after');
    return result;
  };
  const wrap = (executor: Executor): Executor => ({
    query: (sql, params) => step(sql, () => executor.query(sql, params)),
  });
  return {
    ...wrap(database),
    transaction: (run) =>
      step('begin', async () => {
        const result = await database.transaction(async (tx) => {
          const made = await run({ ...wrap(tx), raw: tx.raw });
          await fault('commit', 'before');
          return made;
        });
        await fault('commit', 'after');
        return result;
      }),
  };
}

/** A bus of which a process sees only what a relay needs, and that dies or freezes with the process. */
export function faultyBus(bus: EventBus, fault: Fault): EventBus {
  const replaced: Pick<EventBus, 'append' | 'lastPosition'> = {
    append: async (...args) => {
      await fault('append', 'before');
      const count = await bus.append(...args);
      await fault('append', 'after');
      return count;
    },
    lastPosition: async (...args) => {
      await fault('lastPosition', 'before');
      return bus.lastPosition(...args);
    },
  };
  return new Proxy(bus, {
    get: (_, name) => {
      const value = Reflect.get(Object.hasOwn(replaced, name) ? replaced : bus, name);
      return typeof value === 'function' ? value.bind(bus) : value;
    },
  });
}

/** Lets a process die at one of its steps: by default that step and all later ones fail. */
export function dieAt(at: number, side: 'before' | 'after', die: () => void = fail) {
  let steps = 0;
  const died = deferred<void>();
  const fault: Fault = (_step, when) => {
    if (when === 'before') steps++;
    if (steps < at || (steps === at && when === 'before' && side === 'after')) return;
    died.resolve();
    die();
  };
  return { fault, died: died.promise };
}

function fail(): never {
  throw new Error('the process has died');
}

/** Lets a process freeze, and go on, at all of its steps. */
export function freezer() {
  let frozen: ReturnType<typeof deferred<void>> | undefined;
  return {
    fault: (() => frozen?.promise) satisfies Fault,
    freeze: () => {
      frozen ??= deferred();
    },
    thaw: () => {
      frozen?.resolve();
      frozen = undefined;
    },
  };
}
