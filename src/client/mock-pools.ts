import type { Agent, Dispatcher } from 'undici';
import * as undici from '../internal/undici.ts';

type Dispatch = (options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler) => boolean;

/**
 * Holds the pools of a MockAgent that has a dispatcher of ours as its `agent`. The MockAgent
 * expects an Agent there, which keeps a pool for each origin in a map. It puts its own pools, which
 * give the mocked responses, into that map.
 */
export class MockPools {
  readonly #send: Dispatch;
  /** #agent is made when a MockAgent reads the map. */
  #agent: (Agent & { [clients: symbol]: Map<string, object> }) | undefined = undefined;

  /** @param send sends a request that is not mocked, if the MockAgent lets it pass. */
  constructor(owner: Dispatcher, send: Dispatch) {
    this.#send = send;
    Object.defineProperty(owner, undici.symbols.kClients, {
      get: () => {
        this.#agent ??= new undici.Agent() as Agent & { [clients: symbol]: Map<string, object> };
        return this.#agent[undici.symbols.kClients];
      },
    });
  }

  /** Finds the dispatcher of the mocked responses of an origin, if it has any. */
  find(origin: string | URL | undefined): Dispatcher | undefined {
    const entry = this.#agent?.[undici.symbols.kClients]?.get(String(origin));
    if (entry === undefined) return undefined;
    const pool = 'dispatcher' in entry ? (entry.dispatcher as object) : entry;
    // The pool would otherwise make connections by itself.
    Object.defineProperty(pool, undici.symbols.kDispatch, { value: this.#send, configurable: true });
    return this.#agent;
  }
}
