/** A JSON Schema, draft 2020-12. */
export type JsonSchema = { readonly [keyword: string]: unknown };

/** Collects the definitions of a schema. */
export class SchemaBuilder {
  readonly definitions: Record<string, JsonSchema> = {};

  /** Defines an object once, and refers to it. */
  define(name: string, build: () => JsonSchema): JsonSchema {
    if (!(name in this.definitions)) {
      // Its place among the definitions is that of its first use.
      this.definitions[name] = {};
      this.definitions[name] = build();
    }
    return { $ref: `#/$defs/${name}` };
  }
}
