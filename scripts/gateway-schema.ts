/**
 * Writes the JSON Schema of gateway files, and the reference in docs/gateway.md, from the shapes of the options and the
 * comments of their types.
 *
 *     node scripts/gateway-schema.ts && npm run format
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import ts from 'typescript';
import { buildGatewaySchema } from '../src/gateway/config/gateway-schema.ts';

const SCHEMA = 'src/gateway/config/gateway.schema.json';
const DOCS = 'docs/gateway.md';
const BEGIN = '<!-- The reference begins: node scripts/gateway-schema.ts writes it. -->';
const END = '<!-- The reference ends. -->';

type Schema = { [keyword: string]: unknown };

/** The comments of interfaces and of their fields, by the name of the interface and of the field. */
type Comments = ReadonlyMap<string, ReadonlyMap<string, string>>;

const SOURCES = [
  'src/gateway/**/*.ts',
  'src/middleware/server/rate-limit/*.ts',
  'src/discovery/dns-lookup.ts',
];

/** Names of objects in the schema that are written within another interface. */
const INLINE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  IdentityOptions: { key: 'An Ed25519 JWK with its private part.' },
  WebSocketOptions: { origins: 'The origins of the pages that may open one.' },
};

function readComments(): Comments {
  const found = new Map<string, Map<string, string>>(
    Object.entries(INLINE).map(([name, fields]) => [name, new Map(Object.entries(fields))]),
  );
  const parents = new Map<string, readonly string[]>();
  for (const file of SOURCES.flatMap((pattern) => globSync(pattern))) {
    const tree = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true);
    for (const node of tree.statements) {
      if (!ts.isInterfaceDeclaration(node)) continue;
      parents.set(node.name.text, parentsOf(node));
      found.set(
        node.name.text,
        new Map(node.members.map((member) => [member.name!.getText(), commentOf(member)])),
      );
    }
  }
  for (const [name, bases] of parents) {
    for (const base of bases) {
      for (const [field, comment] of found.get(base) ?? []) found.get(name)!.set(field, comment);
    }
  }
  return found;
}

function parentsOf(node: ts.InterfaceDeclaration): string[] {
  return (node.heritageClauses ?? []).flatMap(({ types }) =>
    types.map(({ expression }) => expression.getText()),
  );
}

function commentOf(node: ts.Node): string {
  const comment = ts.getJSDocCommentsAndTags(node).find(ts.isJSDoc)?.comment;
  return (ts.getTextOfJSDocComment(comment) ?? '').replace(/\s+/g, ' ').trim();
}

/** Adds the comments to the schema. */
export function describeSchema(): Schema {
  const schema = buildGatewaySchema() as { $defs: Record<string, { properties?: Record<string, Schema> }> };
  const comments = readComments();
  for (const [name, { properties = {} }] of Object.entries(schema.$defs)) {
    for (const [field, property] of Object.entries(properties)) {
      const description = comments.get(name)?.get(field);
      if (description) properties[field] = { description, ...property };
    }
  }
  return schema;
}

/** Writes the objects of the schema as tables. */
export function toReference(schema: Schema): string {
  const definitions = schema.$defs as Record<
    string,
    { properties: Record<string, Schema>; required?: string[] }
  >;
  return Object.entries(definitions)
    .map(([name, { properties, required = [] }]) => {
      const rows = Object.entries(properties).map(
        ([field, property]) =>
          `| \`${field}\`${required.includes(field) ? ' (required)' : ''} | ${describeType(property)} | ${escapePipes(String(property.description ?? ''))} |`,
      );
      return [`#### ${name}`, '', '| option | value | meaning |', '| --- | --- | --- |', ...rows].join('\n');
    })
    .join('\n\n');
}

function describeType(schema: Schema): string {
  const { $ref, anyOf, enum: values, type, items, additionalProperties } = schema;
  if ($ref !== undefined) return linkTo(String($ref).split('/').at(-1)!);
  if (anyOf !== undefined) return describeAlternatives(anyOf as Schema[]);
  if (values !== undefined) return (values as unknown[]).map((value) => `\`${value}\``).join(', ');
  if (type === 'array') return `list of ${describeType(items as Schema)}`;
  if (type === 'object' && typeof additionalProperties === 'object')
    return `object of ${describeType(additionalProperties as Schema)}`;
  return (
    { string: 'text', integer: 'whole number', boolean: '`true`, `false`' }[String(type)] ?? String(type)
  );
}

function describeAlternatives(schemas: readonly Schema[]): string {
  const marked = schemas.filter(isMark);
  const kinds = schemas.filter((schema) => !isMark(schema)).map(describeType);
  return `${[...new Set(kinds)].join(' or ')}${marked.length > 0 ? ' ¹' : ''}`;
}

function isMark({ pattern }: Schema): boolean {
  return typeof pattern === 'string' && pattern.startsWith('\\$\\{env:');
}

function linkTo(name: string): string {
  return `[${name}](#${name.toLowerCase()})`;
}

function escapePipes(text: string): string {
  return text.replaceAll('|', '\\|');
}

/** Puts the reference into the docs, between its marks. */
export function insertReference(docs: string, reference: string): string {
  const [before, rest] = docs.split(BEGIN) as [string, string];
  const after = rest.slice(rest.indexOf(END));
  return `${before}${BEGIN}\n\n${reference}\n\n${after}`;
}

if (import.meta.main) {
  const schema = describeSchema();
  writeFileSync(SCHEMA, `${JSON.stringify(schema, null, 2)}\n`);
  writeFileSync(DOCS, insertReference(readFileSync(DOCS, 'utf8'), toReference(schema)));
}
