import { isObservable, NO_LABELS, OBSERVE } from '../internal/observation.ts';
import { hasMethods, requireOption, validateOptions } from '../internal/validate.ts';
import { EventLog } from './event-log.ts';
import type { Logger } from './logger.ts';

export interface ObserveOptions {
  /**
   * Gets what an operator must know, as `logger.warn(fields, message)`: pino, `fromConsole()`, or any
   * object with `debug`, `info`, `warn` and `error`.
   */
  logger: Logger;
}

/**
 * Logs what happens to an object and to its parts, those that it gets later included: a client with
 * its breakers, its balancer and its discovery, a gateway with its client, a graceful shutdown with
 * all that it ends. docs/operations.md lists the lines and their levels.
 *
 * What may happen with every call is logged once when it begins, and counted then. An event that an
 * object and one of its parts are observed for, with the same logger, is logged once. A logger that
 * throws disturbs nobody: there is one process warning.
 *
 * @returns a function that ends it, which may be called again
 * @throws TypeError for a target that has nothing to observe, or that names the wrong option
 * @example
 * const unobserve = observe(client, { logger: pino() });
 */
export function observe(target: object, options: ObserveOptions): () => void {
  validateOptions('observe()', options, { logger: hasMethods('debug', 'info', 'warn', 'error') });
  requireOption('observe()', options, 'logger');
  if (!isObservable(target)) {
    throw new TypeError(
      'observe() takes a policy, client, balancer, discovery, registrar, guard, health, shutdown, bus, ' +
        'outbox, projection, orchestrator or gateway of Holdfast; a ServiceClient stands for the dispatcher, ' +
        'fetch or agent that was made of it',
    );
  }
  const log = new EventLog(options.logger);
  target[OBSERVE](log, NO_LABELS);
  return () => log.end();
}
