import { exitBySignal } from '../internal/exit-by-signal.ts';
import { processState } from '../internal/process-state.ts';

/** A ServiceRegistrar, of this copy of the package or of another one. */
interface Registrar {
  close(): Promise<void>;
}

/**
 * Closes the registrars of a process when their signal arrives, with one listener of each signal for all
 * of them, and ends the process no sooner than all of them are closed.
 */
class DeregistrationSignals {
  readonly #registrars = new Map<NodeJS.Signals, Set<Registrar>>();
  #closed: Promise<unknown> = Promise.resolve();

  /** Resolves once the registrars that signals have closed so far are done. */
  get closed(): Promise<unknown> {
    return this.#closed;
  }

  add(signal: NodeJS.Signals, registrar: Registrar): void {
    const registrars = this.#registrars.get(signal) ?? new Set();
    // The first listener sees the others, those that Node removes as it calls them included.
    if (!process.listeners(signal).includes(this.#closeAll))
      process.prependOnceListener(signal, this.#closeAll);
    this.#registrars.set(signal, registrars.add(registrar));
  }

  remove(signal: NodeJS.Signals, registrar: Registrar): void {
    const registrars = this.#registrars.get(signal);
    if (registrars?.delete(registrar) && registrars.size === 0) process.off(signal, this.#closeAll);
  }

  /**
   * Closes all registrars of a signal. Other listeners of the process decide what the signal does;
   * without any the process exits, so that its exit handlers run.
   */
  readonly #closeAll = (signal: NodeJS.Signals): void => {
    const alone = process.listenerCount(signal) === 0;
    const registrars = [...(this.#registrars.get(signal) ?? [])];
    this.#registrars.delete(signal);
    this.#closed = Promise.all([this.#closed, ...registrars.map((registrar) => registrar.close())]);
    if (alone) void this.#closed.then(() => exitBySignal(signal));
  };
}

/** One for the process: a copy of the package that exits alone would cut off what another one deregisters. */
export const deregistrationSignals = processState(
  'deregistration-signals',
  () => new DeregistrationSignals(),
);
