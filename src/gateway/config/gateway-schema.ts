import { fileOptions } from './file-shapes.ts';
import { type JsonSchema, SchemaBuilder } from './json-schema.ts';

/** Builds the JSON Schema of files, as `holdfast/gateway.schema.json` has it, without descriptions. */
export function buildGatewaySchema(): JsonSchema {
  const builder = new SchemaBuilder();
  const root = fileOptions.toSchema(builder);
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'The configuration of a Holdfast gateway',
    ...root,
    $defs: builder.definitions,
  };
}
