import type { Environment, OptionPlace } from './problems.ts';

/** The form of the name of an environment variable. */
export const NAME_OF_VARIABLE = '[A-Za-z_][A-Za-z0-9_]*';

/**
 * Replaces each `${env:NAME}` in a text by the variable. A variable that is empty counts as unset, as it
 * does where a deployment forgot it.
 *
 * @returns undefined if one is unset, which is reported
 */
export function insertVariables(text: string, env: Environment, place: OptionPlace): string | undefined {
  let complete = true;
  const inserted = text.replace(/\$\{env:([^}]*)\}?/g, (mark, name: string) => {
    const wellFormed = mark.endsWith('}') && new RegExp(`^${NAME_OF_VARIABLE}$`).test(name);
    const value = wellFormed && Object.hasOwn(env, name) ? env[name] : undefined;
    if (value) return value;
    complete = false;
    place.report(
      wellFormed
        ? `needs the environment variable ${name}, which is not set`
        : `has a malformed \${env:NAME}`,
    );
    return '';
  });
  return complete ? inserted : undefined;
}
