import { exitBySignal, SAME_SIGNAL_WINDOW } from '../internal/exit-by-signal.ts';
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
  /** When each signal arrived whose registrars are closed at the moment, by `performance.now()`. */
  readonly #signalledAt = new Map<NodeJS.Signals, number>();
  #closed: Promise<unknown> = Promise.resolve();

  /** Resolves once the registrars that signals have closed so far are done, and their listeners gone. */
  get closed(): Promise<unknown> {
    return this.#closed;
  }

  add(signal: NodeJS.Signals, registrar: Registrar): void {
    const registrars = this.#registrars.get(signal) ?? new Set();
    // The first listener sees all others; Node removes a `once` listener as it calls it.
    if (!process.listeners(signal).includes(this.#onSignal)) process.prependListener(signal, this.#onSignal);
    this.#registrars.set(signal, registrars.add(registrar));
  }

  remove(signal: NodeJS.Signals, registrar: Registrar): void {
    const registrars = this.#registrars.get(signal);
    if (!registrars?.delete(registrar) || registrars.size > 0) return;
    this.#registrars.delete(signal);
    this.#stopListening(signal);
  }

  /**
   * Closes all registrars of a signal. Other listeners of the process decide what the signal does;
   * without any the process exits, so that its exit handlers run.
   */
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    const alone = process.listenerCount(signal) === 1;
    const signalledAt = this.#signalledAt.get(signal);
    if (signalledAt === undefined) {
      this.#closed = this.#closeAll(signal);
      if (alone) void this.#closed.then(() => exitBySignal(signal));
    } else if (alone && performance.now() - signalledAt >= SAME_SIGNAL_WINDOW) {
      exitBySignal(signal);
    }
  };

  async #closeAll(signal: NodeJS.Signals): Promise<void> {
    const registrars = [...(this.#registrars.get(signal) ?? [])];
    this.#registrars.delete(signal);
    this.#signalledAt.set(signal, performance.now());
    await Promise.all([this.#closed, ...registrars.map((registrar) => registrar.close())]);
    this.#signalledAt.delete(signal);
    this.#stopListening(signal);
  }

  /** Keeps the listener while registrars are closed: another one that finds itself alone may end the process. */
  #stopListening(signal: NodeJS.Signals): void {
    if (this.#registrars.has(signal) || this.#signalledAt.has(signal)) return;
    process.off(signal, this.#onSignal);
  }
}

/** One for the process: a copy of the package that exits alone would cut off what another one deregisters. */
export const deregistrationSignals = processState(
  'deregistration-signals',
  () => new DeregistrationSignals(),
);
