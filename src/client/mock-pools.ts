import type { Agent, Dispatcher } from 'undici';
import * as undici from '../internal/undici.ts';

type Dispatch = (options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler) => boolean;

/**
 * The pools of a MockAgent that has a dispatcher of ours as its `agent`. It expects an Agent there, which keeps a pool
 * for each origin in a map, and puts its own, which answer with what was mocked, into that map.
 */
export class MockPools {
  readonly #send: Dispatch;
  /** Made when a MockAgent asks for the map. */
  #agent: (Agent & { [clients: symbol]: Map<string, object> }) | undefined = undefined;

  /** @param send takes what was not mocked, if the MockAgent lets it pass. */
  constructor(owner: Dispatcher, send: Dispatch) {
    this.#send = send;
    Object.defineProperty(owner, undici.symbols.kClients, {
      get: () => {
        this.#agent ??= new undici.Agent() as Agent & { [clients: symbol]: Map<string, object> };
        return this.#agent[undici.symbols.kClients];
      },
    });
  }

  /** What answers for an origin if any of it is mocked. */
  find(origin: string | URL | undefined): Dispatcher | undefined {
    const entry = this.#agent?.[undici.symbols.kClients]?.get(String(origin));
    if (entry === undefined) return undefined;
    const pool = 'dispatcher' in entry ? (entry.dispatcher as object) : entry;
    // Where it would make connections by itself.
    Object.defineProperty(pool, undici.symbols.kDispatch, { value: this.#send, configurable: true });
    return this.#agent;
  }
}
