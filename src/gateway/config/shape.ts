import { nearestName } from '../../internal/near-name.ts';
import { shown } from '../../internal/shown.ts';
import { isPlain } from '../../internal/validate.ts';
import { insertVariables, NAME_OF_VARIABLE } from './env.ts';
import type { JsonSchema, SchemaBuilder } from './json-schema.ts';
import type { OptionPlace } from './problems.ts';

/**
 * Says what an option may be. The validation of options, the JSON Schema of files, and the reference
 * in the docs all come from the same shapes, so that they cannot differ.
 */
export interface Shape {
  /** Describes in a message what is expected. */
  readonly expected: string;
  /** Whether a value is of this kind, so that messages are about its parts. */
  accepts(value: unknown): boolean;
  /** Gives the value as it is used, and reports what is wrong with it. */
  read(value: unknown, place: OptionPlace): unknown;
  /** Undefined if the value can be written in code alone. */
  toSchema(builder: SchemaBuilder): JsonSchema | undefined;
}

/** A field of an object; without `required` it may be left out. */
export interface Field extends Shape {
  readonly required?: boolean | undefined;
}

export function required(shape: Shape): Field {
  return { ...shape, required: true };
}

/** Reports that a value is of the wrong kind. It shows no text, which may be secret. */
function reject(expected: string, value: unknown, place: OptionPlace): void {
  place.report(`must be ${expected}; got ${typeof value === 'string' ? 'another text' : shown(value)}`);
}

/** @param form anchored, and without flags */
export function text(form: RegExp, expected: string): Shape {
  const pattern = new RegExp(form.source, 'u');
  return {
    expected,
    accepts: (value) => typeof value === 'string',
    read(value, place) {
      const found = typeof value === 'string' && place.env !== undefined && value.includes('${env:');
      if (found) place.report(`takes no \${env:NAME}: only the fields that the schema marks do`);
      else if (typeof value !== 'string' || !pattern.test(value)) reject(expected, value, place);
      return value;
    },
    toSchema: () => ({ type: 'string', pattern: form.source }),
  };
}

export const anyText = text(/^[\s\S]+$/, 'a non-empty text');

export function number(min: number, max: number, { whole = false, unbounded = false } = {}): Shape {
  const kind = whole ? 'a whole number' : 'a number';
  const expected =
    max >= Number.MAX_SAFE_INTEGER ? `${kind} of at least ${min}` : `${kind} from ${min} to ${max}`;
  return {
    expected,
    accepts: (value) => typeof value === 'number',
    read(value, place) {
      const passes =
        typeof value === 'number' &&
        ((value >= min && value <= max && (!whole || Number.isInteger(value))) ||
          (unbounded && value === Infinity));
      if (!passes) reject(expected, value, place);
      return value;
    },
    toSchema: () => ({
      type: whole ? 'integer' : 'number',
      minimum: min,
      ...(max < Number.MAX_SAFE_INTEGER && { maximum: max }),
    }),
  };
}

/** One of some values. */
export function choice(...values: readonly (string | boolean)[]): Shape {
  const expected = values.map((value) => (typeof value === 'string' ? `'${value}'` : value)).join(' or ');
  return {
    expected,
    accepts: (value) => values.includes(value as string | boolean),
    read(value, place) {
      if (!values.includes(value as string | boolean)) reject(expected, value, place);
      return value;
    },
    toSchema: () => ({ enum: values }),
  };
}

export const flag: Shape = { ...choice(true, false), toSchema: () => ({ type: 'boolean' }) };

export function list(item: Shape, { min = 0 } = {}): Shape {
  const expected = `a list of ${min > 0 ? 'at least one: ' : ''}${item.expected}`;
  return {
    expected,
    accepts: Array.isArray,
    read(value, place) {
      if (!Array.isArray(value)) {
        reject(expected, value, place);
        return value;
      }
      if (value.length < min) place.report(`must be ${expected}; got none`);
      // Array.from() reads the holes of a list too, which map() leaves out.
      return Array.from(value, (one, index) => item.read(one, place.at(index)));
    },
    toSchema(builder) {
      const items = item.toSchema(builder);
      return items && { type: 'array', items, ...(min > 0 && { minItems: min }) };
    },
  };
}

/** Values by names of a form. */
export function record(form: RegExp, expectedName: string, item: Shape): Shape {
  const pattern = new RegExp(form.source, 'u');
  const expected = `an object of ${item.expected} by ${expectedName}`;
  return {
    expected,
    accepts: isObject,
    read(value, place) {
      if (!isObject(value)) {
        reject(expected, value, place);
        return value;
      }
      const entries = Object.entries(value).map(([name, one]) => {
        const at = place.at(name);
        if (!pattern.test(name)) at.report(`is not ${expectedName}`);
        return [name, item.read(one, at)];
      });
      return Object.fromEntries(entries);
    },
    toSchema(builder) {
      const values = item.toSchema(builder);
      return (
        values && {
          type: 'object',
          propertyNames: { pattern: form.source },
          additionalProperties: values,
        }
      );
    },
  };
}

/** The first of several shapes that accepts the kind of the value. */
export function either(...shapes: readonly Shape[]): Shape {
  const expected = shapes.map((shape) => shape.expected).join(', or ');
  return {
    expected,
    accepts: (value) => shapes.some((shape) => shape.accepts(value)),
    read(value, place) {
      const shape = shapes.find((one) => one.accepts(value));
      if (shape !== undefined) return shape.read(value, place);
      reject(expected, value, place);
      return value;
    },
    toSchema(builder) {
      const found = shapes.map((shape) => shape.toSchema(builder)).filter((schema) => schema !== undefined);
      return found.length > 1 ? { anyOf: found } : found[0];
    },
  };
}

/** The fields of an interface, all of them, and what each may be. */
export type Fields<T> = { readonly [K in keyof Required<T>]: Field };

/**
 * An object with these fields and no others.
 *
 * @param name the name of the interface, whose comments describe the fields in the schema
 * @param check reports what is wrong with the fields together
 */
export function object<T extends object>(
  name: string,
  fields: Fields<T>,
  check: (value: T, place: OptionPlace) => void = () => {},
): Shape {
  const known = new Map<string, Field>(Object.entries(fields));
  const expected = `an object with ${[...known.keys()].slice(0, 4).join(', ')}${known.size > 4 ? ', …' : ''}`;
  return {
    expected,
    accepts: isObject,
    read(value, place) {
      if (!isObject(value)) {
        reject(expected, value, place);
        return value;
      }
      const result = readFields(known, value, place);
      // What the fields say together means something only if each of them is right. All were read.
      if (place.isClean()) check(result as T, place);
      return result;
    },
    toSchema: (builder) => builder.define(name, () => toObjectSchema(known, builder)),
  };
}

function readFields(known: ReadonlyMap<string, Field>, value: object, place: OptionPlace): object {
  const result: Record<string, unknown> = {};
  for (const [name, one] of Object.entries(value)) {
    const field = known.get(name);
    if (field === undefined) reportUnknown(name, known.keys(), place);
    else if (one !== undefined) result[name] = field.read(one, place.at(name));
  }
  for (const [name, field] of known) {
    const missing = field.required && (value as Record<string, unknown>)[name] === undefined;
    if (missing) place.report(`needs the option '${name}'`);
  }
  return result;
}

function reportUnknown(name: string, known: Iterable<string>, place: OptionPlace): void {
  const near = nearestName(name, known);
  place.at(name).report(near === undefined ? 'is not known' : `is not known: is '${near}' meant?`);
}

function toObjectSchema(known: ReadonlyMap<string, Field>, builder: SchemaBuilder): JsonSchema {
  const properties: Record<string, JsonSchema> = {};
  for (const [name, field] of known) {
    const schema = field.toSchema(builder);
    if (schema !== undefined) properties[name] = schema;
  }
  const needed = [...known].filter(([, field]) => field.required).map(([name]) => name);
  return {
    type: 'object',
    properties,
    ...(needed.length > 0 && { required: needed }),
    additionalProperties: false,
  };
}

/** Whether a value has fields that are options: no list, no Map, no promise, no instance of a class. */
function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && isPlain(value);
}

/** Takes what only code can give, such as a function. In a file it is an error. */
export function codeOnly(accepts: (value: unknown) => boolean, expected: string): Shape {
  return {
    expected,
    accepts,
    read(value, place) {
      if (place.env !== undefined) place.report('can be given in code alone');
      else if (!accepts(value)) reject(expected, value, place);
      return value;
    },
    toSchema: () => undefined,
  };
}

/** An object whose fields are another library's matter. @param names those that it may have; default: all */
export function externalObject(expected: string, names?: readonly string[]): Shape {
  return {
    expected,
    accepts: isObject,
    read(value, place) {
      if (!isObject(value)) {
        reject(expected, value, place);
        return value;
      }
      if (names === undefined) return value;
      for (const name of Object.keys(value)) if (!names.includes(name)) reportUnknown(name, names, place);
      return value;
    },
    toSchema: () => ({ type: 'object', ...(names && { propertyNames: { enum: names } }) }),
  };
}

/** Marks a field that is secret or differs by environment: in a file `${env:NAME}` is a part of its text. */
export function fromEnv(shape: Shape, parse: (text: string) => unknown = (value) => value): Shape {
  const mark = { type: 'string', pattern: `\\$\\{env:${NAME_OF_VARIABLE}\\}` };
  return {
    ...shape,
    accepts: (value) => shape.accepts(value) || isMarked(value),
    read(value, place) {
      if (place.env === undefined || !isMarked(value)) return shape.read(value, place);
      const inserted = insertVariables(value, place.env, place);
      return inserted === undefined ? value : shape.read(parse(inserted), place.inserted());
    },
    toSchema(builder) {
      const schema = shape.toSchema(builder);
      return schema && { anyOf: [schema, mark] };
    },
  };
}

function isMarked(value: unknown): value is string {
  return typeof value === 'string' && value.includes('${env:');
}
