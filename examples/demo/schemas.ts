/**
 * JSON schemas that more than one service needs. They let through what PostgreSQL and the bus can keep,
 * and no more: everything else is a 422, not a 500 of the service that meets it first.
 */
export const id = { type: 'string', pattern: '^[\\w-]{1,64}$' };
/** No control characters: a line break in the address could add headers to a mail. */
export const email = {
  type: 'string',
  maxLength: 254,
  pattern: '^[^@\\s\\p{Cc}\\p{Cs}]+@[^@\\s\\p{Cc}\\p{Cs}]+$',
};
export const quantity = { type: 'integer', minimum: 1, maximum: 100 };
export const amount = { type: 'number', minimum: 0.01, maximum: 1_000_000 };

/** The schema of one line of text. */
export function line(maxLength: number) {
  return { type: 'string', minLength: 1, maxLength, pattern: '^[^\\p{Cc}\\p{Cs}]*$' };
}

/** The schema of an object that has these fields, all of them, and no other. */
export function exactly(properties: Record<string, object>) {
  return { type: 'object', required: Object.keys(properties), properties, additionalProperties: false };
}
