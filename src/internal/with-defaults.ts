/** Options of which those with a default are there, unless the default may be undefined. */
type WithDefaults<G, D> = G & { [K in keyof D & keyof G]: Exclude<G[K], undefined> | D[K] };

/**
 * Fills in the defaults of options that are left out. An option that is undefined counts as left out,
 * where a spread (`{ ...defaults, ...given }`) would let undefined win.
 */
export function withDefaults<G extends object, D extends Partial<G>>(
  defaults: D,
  given: G,
): WithDefaults<G, D> {
  const options: Record<string, unknown> = { ...defaults, ...given };
  for (const [name, value] of Object.entries(defaults)) {
    if (options[name] === undefined) options[name] = value;
  }
  return options as WithDefaults<G, D>;
}
