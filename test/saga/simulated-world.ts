/** A world for simulations of sagas: a network that loses and delays, services that keep keys, processes that die. */
import { setEngine } from '../../src/client/call-engine.ts';
import { ServiceClient } from '../../src/client/service-client.ts';
import {
  constantBackoff,
  type DomainEvent,
  type EventBus,
  ServiceConnectionError,
  ServiceResponseError,
  TimeoutError,
} from '../../src/index.ts';
import { type Abortable, type AbortListener, OnAbort } from '../../src/policies/abort.ts';
import type { AnySaga } from '../../src/saga/orchestrator-options.ts';
import { SagaOrchestrator } from '../../src/saga/saga-orchestrator.ts';
import type { SagaStore } from '../../src/saga/saga-store.ts';

export const LEASE = 2_000;
const INSTANCE = { serviceName: 'service', instanceId: 'i1' };

/** Draws by chance, the same for the same seed. Source: mulberry32 of Tommy Ettinger. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    const mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    const more = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((more ^ (more >>> 14)) >>> 0) / 2 ** 32;
  }

  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from));
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.next() * items.length)]!;
  }
}

/** A request as a service gets it. */
interface Request {
  readonly path: string;
  readonly key: string;
  readonly compensates: string | undefined;
}

/**
 * Services that do as docs/sagas.md asks: one effect for each key; a compensation keeps the invocation that it undoes
 * from taking effect later. The path says how they respond.
 */
export class Services {
  /** How often each key has had its effect. */
  readonly effects = new Map<string, number>();
  /** The invocations whose effect is there. */
  readonly present = new Set<string>();
  readonly #revoked = new Set<string>();

  handle({ path, key, compensates }: Request): { status: number } {
    if (path === '/rejects') return { status: 422 };
    if (compensates !== undefined) return this.#compensate(key, compensates);
    if (this.effects.has(key)) return { status: 200 };
    if (this.#revoked.has(key)) return { status: 409 };
    this.#count(key);
    this.present.add(key);
    return { status: 200 };
  }

  #compensate(key: string, compensates: string): { status: number } {
    if (this.effects.has(key)) return { status: 200 };
    this.#count(key);
    this.#revoked.add(compensates);
    this.present.delete(compensates);
    return { status: 200 };
  }

  #count(key: string): void {
    this.effects.set(key, (this.effects.get(key) ?? 0) + 1);
  }
}

/** The probabilities that something goes wrong: nothing does once the world is calmed. */
export interface Troubles {
  readonly call: number;
  readonly store: number;
}

export class World {
  readonly services = new Services();
  readonly chance: Chance;
  readonly processes: SimulatedProcess[] = [];
  /** The sides of each write and of each call that were passed. */
  points = 0;
  /** The point at which a process dies. */
  deathAt = 0;
  readonly #store: SagaStore;
  readonly #sagas: readonly AnySaga[];
  #troubles: Troubles;
  #isOver = false;

  constructor(seed: number, store: SagaStore, sagas: readonly AnySaga[], troubles: Troubles) {
    this.chance = new Chance(seed);
    this.#store = store;
    this.#sagas = sagas;
    this.#troubles = troubles;
  }

  get living(): SimulatedProcess[] {
    return this.processes.filter(({ alive }) => alive);
  }

  /** Gives a process that lives, as soon as there is one. */
  async findLiving(): Promise<SimulatedProcess> {
    while (this.living.length === 0) await (this.#isOver ? silence() : sleep(20));
    return this.chance.pick(this.living);
  }

  /** Ends all processes: what they have sent still arrives. */
  end(): void {
    this.#isOver = true;
    for (const process of this.processes) process.kill();
  }

  calm(): void {
    this.#troubles = { call: 0, store: 0 };
  }

  startProcess(): SimulatedProcess {
    const process = new SimulatedProcess(this, this.#store, this.#sagas);
    this.processes.push(process);
    return process;
  }

  /** Delivers an event to one process of each group: again until it is handled, and sometimes once more. */
  async publish(event: DomainEvent): Promise<void> {
    for (let times = this.chance.next() < 0.3 ? 2 : 1; times > 0; ) {
      const process = await this.findLiving();
      const handlers = process.handlersOf(event.eventType);
      const handled = await Promise.race([
        Promise.all(handlers.map((handle) => handle(event))).then(
          () => handlers.length > 0,
          () => false,
        ),
        sleep(5_000).then(() => false),
      ]);
      if (handled) times -= 1;
      else await sleep(200);
    }
  }

  /** Passes a point at which a process may die; gives whether it lives. */
  pass(process: SimulatedProcess): boolean {
    this.points += 1;
    if (this.points === this.deathAt) process.kill();
    return process.alive;
  }

  isTroubled(of: keyof Troubles): boolean {
    return this.chance.next() < this.#troubles[of];
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Never resolves: nobody is there any more. */
const silence = () => new Promise<never>(() => {});

type Handler = (event: DomainEvent) => unknown;

/** A process with an orchestrator. When it is killed, it neither sends nor receives anything more. */
export class SimulatedProcess {
  alive = true;
  readonly orchestrator: SagaOrchestrator;
  readonly #world: World;
  readonly #handlers = new Map<string, Handler[]>();
  #frozen: Promise<void> | undefined = undefined;

  constructor(world: World, store: SagaStore, sagas: readonly AnySaga[]) {
    this.#world = world;
    this.orchestrator = new SagaOrchestrator({
      store: this.#reach(store),
      sagas,
      client: this.#createClient(),
      bus: this.#createBus(),
      lease: LEASE,
      closeTimeout: 0,
    });
  }

  kill(): void {
    this.alive = false;
  }

  /** Holds back what it sends and what comes to it, as if it stood still just before. */
  freeze(milliseconds: number): void {
    this.#frozen = sleep(milliseconds);
  }

  handlersOf(eventType: string): readonly Handler[] {
    return this.#handlers.get(eventType) ?? [];
  }

  /** Reaches the store over a network: what was sent may be applied though its sender has died since. */
  #reach(store: SagaStore): SagaStore {
    return new Proxy(store, {
      get: (target, name) => {
        const method = target[name as keyof SagaStore];
        if (name === 'list' || typeof method !== 'function') return method;
        const ask = method as (...args: unknown[]) => unknown;
        const isWrite = name === 'create' || name === 'write';
        return (...args: unknown[]) => this.#overNetwork(isWrite, () => ask.apply(target, args));
      },
    });
  }

  async #overNetwork(isWrite: boolean, ask: () => unknown): Promise<unknown> {
    if (!this.alive || (isWrite && !this.#world.pass(this))) return await silence();
    const { chance } = this.#world;
    const troubled = this.#world.isTroubled('store');
    const trouble = troubled ? chance.pick(['lost', 'unanswered', 'late'] as const) : undefined;
    await this.#frozen;
    await sleep(trouble === 'late' ? chance.between(500, 3 * LEASE) : chance.between(1, 10));
    if (trouble === 'lost') throw new Error('the connection was lost');
    const response = await ask();
    await sleep(chance.between(1, 10));
    await this.#frozen;
    if (!this.alive || (isWrite && !this.#world.pass(this))) return await silence();
    if (trouble === 'unanswered') throw new Error('the connection was lost');
    return response;
  }

  #createBus(): EventBus {
    const subscribe = async (eventType: string, handle: Handler) => {
      if (!this.alive) return await silence();
      this.#handlers.set(eventType, [...this.handlersOf(eventType), handle]);
      return { close: async () => {} };
    };
    return { subscribe, publish: async () => {} } as never;
  }

  #createClient(): ServiceClient {
    const client = Object.create(ServiceClient.prototype);
    setEngine(client, {
      policiesOf: () => ({ maxResponseSize: Infinity }),
      begin: (_call: unknown, request: unknown) => ({ request, sent: false }),
      run: (call: never) => this.#call(call),
    } as never);
    return client;
  }

  #call({
    state,
    source,
    timeout,
  }: {
    state: CallState;
    source: Abortable;
    timeout: number;
  }): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const listener: AbortListener = new OnAbort(reject);
      source.listen(listener);
      const timer = setTimeout(() => reject(new TimeoutError('too late', timeout)), timeout);
      void this.#exchange(state).then((settle) => {
        if (!this.alive) return;
        clearTimeout(timer);
        source.unlisten(listener);
        settle(resolve, reject);
      });
    });
  }

  async #exchange(
    state: CallState,
  ): Promise<(resolve: (value: unknown) => void, reject: (error: unknown) => void) => void> {
    if (!this.alive || !this.#world.pass(this)) return await silence();
    const { chance, services } = this.#world;
    const troubled = this.#world.isTroubled('call');
    const trouble = troubled
      ? chance.pick(['refused', 'lost', 'unanswered', 'late', 'very late', '503'] as const)
      : undefined;
    if (trouble === 'refused') {
      await sleep(chance.between(1, 50));
      return (_resolve, reject) =>
        reject(new ServiceConnectionError('refused', { ...INSTANCE, sent: false }));
    }
    state.sent = true;
    await this.#frozen;
    const broken = new ServiceConnectionError('broken', { ...INSTANCE, sent: true });
    await sleep(delayOf(trouble, chance));
    if (trouble === 'lost') return (_resolve, reject) => reject(broken);
    if (trouble === '503') return (_resolve, reject) => reject(toError(503));
    const { status } = services.handle(toRequest(state));
    if (!this.#world.pass(this)) return await silence();
    await sleep(chance.between(1, 20));
    await this.#frozen;
    if (trouble === 'unanswered') return (_resolve, reject) => reject(broken);
    return (resolve, reject) => (status === 200 ? resolve({ status }) : reject(toError(status)));
  }
}

interface CallState {
  sent: boolean;
  readonly request: { readonly path: string; readonly headers: readonly string[] };
}

function delayOf(trouble: string | undefined, chance: Chance): number {
  if (trouble === 'late') return chance.between(500, 3_000);
  if (trouble === 'very late') return chance.between(10_000, 60_000);
  return chance.between(1, 30);
}

function toRequest({ request: { path, headers } }: CallState): Request {
  const header = (name: string) => {
    const index = headers.findIndex((item, index) => index % 2 === 0 && item === name);
    return index === -1 ? undefined : headers[index + 1];
  };
  return { path, key: header('idempotency-key')!, compensates: header('compensates-key') };
}

function toError(status: number): ServiceResponseError {
  return new ServiceResponseError(`status ${status}`, { ...INSTANCE, status, headers: {}, body: undefined });
}

export const BACKOFF = constantBackoff(100);
