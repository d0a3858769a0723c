import { constants } from 'node:os';

/**
 * Milliseconds within which a second signal counts as the first one again: npm passes on a Ctrl+C
 * that its child has got as well.
 */
export const SAME_SIGNAL_WINDOW = 500;

/**
 * Ends the process with the status that shells and containers give to an end by the signal. To raise
 * the signal again would end it without its exit handlers, by which loggers write what they hold; and
 * it would not end the first process of a container.
 */
export function exitBySignal(name: NodeJS.Signals): void {
  process.exit(128 + constants.signals[name]);
}
