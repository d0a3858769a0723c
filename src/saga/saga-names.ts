import { matching } from '../internal/validate.ts';

/** Ids and names stand in keys of Redis, in headers and on command lines. */
const SAGA_ID = /^[\w.:-]{1,128}$/;
const NAME = /^[\w-]{1,64}$/;

export const SAGA_ID_FORM = 'letters, digits and . _ : - (at most 128)';
export const NAME_FORM = 'letters, digits, _ and - (at most 64)';

export const checkSagaId = matching(SAGA_ID, SAGA_ID_FORM);

/** Checks the name of a saga, or of a step. */
export const checkName = matching(NAME, NAME_FORM);

export function isSagaId(value: unknown): value is string {
  return typeof value === 'string' && SAGA_ID.test(value);
}

export function isName(value: string): boolean {
  return NAME.test(value);
}
