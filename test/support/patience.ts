import { vi } from 'vitest';

const PATIENT = Symbol.for('holdfast.patient');

/** Unless a test says otherwise: `vi.waitFor` looks often, and gives a busy machine more than a second. */
const DEFAULTS = { interval: 10, timeout: 10_000 };

// Files that share a process share its `vi` too.
if (!(PATIENT in vi)) {
  const { waitFor, waitUntil } = vi;
  const optionsOf = (options: Parameters<typeof waitFor>[1] = {}) => ({
    ...DEFAULTS,
    ...(typeof options === 'number' ? { timeout: options } : options),
  });
  Object.assign(vi, {
    [PATIENT]: true,
    waitFor: ((callback, options) => waitFor(callback, optionsOf(options))) satisfies typeof waitFor,
    waitUntil: ((callback, options) => waitUntil(callback, optionsOf(options))) satisfies typeof waitUntil,
  });
}
