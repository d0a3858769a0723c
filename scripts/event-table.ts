/**
 * Writes the table of all events in docs/operations.md, from their types and from the lines of `observe`, or checks that
 * it is as it would be written, and that each event has its line.
 *
 *     node scripts/event-table.ts && npm run format
 *     node scripts/event-table.ts --check
 */
import { readFileSync, writeFileSync } from 'node:fs';
import ts from 'typescript';
import { LINES } from '../src/observe/lines.ts';

const DOCS = 'docs/operations.md';
const BEGIN = '<!-- The table begins: node scripts/event-table.ts writes it. -->';
const END = '<!-- The table ends. -->';

/** The types that list the events of each entry by kind. */
const KINDS: Readonly<Record<string, string>> = {
  'src/observe/kinds.ts': 'HoldfastEvents',
  'src/redis/kinds.ts': 'HoldfastRedisEvents',
  'src/postgres/kinds.ts': 'HoldfastPostgresEvents',
  'src/gateway/kinds.ts': 'HoldfastGatewayEvents',
};

/** An event as its type describes it. */
interface TypedEvent {
  readonly kind: string;
  readonly name: string;
  /** The fields of its payload; a name with `?` may be left out. */
  readonly fields: readonly string[];
}

/** Reads all events from their types. */
function readEvents(): TypedEvent[] {
  const options = { allowImportingTsExtensions: true, noEmit: true, strict: true, types: ['node'] };
  const program = ts.createProgram(Object.keys(KINDS), {
    ...options,
    module: ts.ModuleKind.NodeNext,
    target: ts.ScriptTarget.ES2023,
  });
  const checker = program.getTypeChecker();
  return Object.entries(KINDS).flatMap(([file, name]) => {
    const { statements } = program.getSourceFile(file)!;
    const declaration = statements.filter(ts.isInterfaceDeclaration).find((one) => one.name.text === name)!;
    return membersOf(checker, checker.getTypeAtLocation(declaration), declaration).flatMap(([kind, events]) =>
      membersOf(checker, events, declaration).map(([event, payload]) => ({
        kind,
        name: event,
        fields: fieldsOf(checker, payload),
      })),
    );
  });
}

function membersOf(checker: ts.TypeChecker, type: ts.Type, at: ts.Node): [string, ts.Type][] {
  return type.getProperties().map((member) => [member.name, checker.getTypeOfSymbolAtLocation(member, at)]);
}

function fieldsOf(checker: ts.TypeChecker, arguments_: ts.Type): string[] {
  const [payload] = checker.getTypeArguments(arguments_ as ts.TypeReference);
  return payload!.getProperties().map(({ name, flags }) => {
    return flags & ts.SymbolFlags.Optional ? `${name}?` : name;
  });
}

/** Writes the events as a table. */
function toTable(events: readonly TypedEvent[]): string {
  const rows = events.map(({ kind, name, fields }) => {
    const payload = fields.length === 0 ? '`{}`' : `\`{ ${fields.join(', ')} }\``;
    return `| \`${kind}\` | \`${name}\` | ${payload} | ${describeLine(kind, name)} |`;
  });
  return ['| kind | event | payload | logged as |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

function describeLine(kind: string, name: string): string {
  const line = LINES[kind]?.[name];
  if (line === undefined) return '';
  const level = typeof line.level === 'string' ? line.level : 'by its payload';
  return `${level}${line.countBy === undefined ? '' : ', counted'}: ${line.message}`;
}

/** Puts the table into the docs, between its marks. */
function insertTable(docs: string, text: string): string {
  const [before, rest] = docs.split(BEGIN) as [string, string];
  return `${before}${BEGIN}\n\n${text}\n\n${rest.slice(rest.indexOf(END))}`;
}

/** Padding of columns says nothing. */
const withoutColumns = (text: string) => text.replace(/ +\|/g, ' |').replace(/-{3,}/g, '---');

/** Gives the events that have no line, and the lines that have no event. */
function findStrays(events: readonly TypedEvent[]): string[] {
  const typed = events.map(({ kind, name }) => `${kind} ${name}`);
  const lines = Object.entries(LINES).flatMap(([kind, of]) =>
    Object.keys(of!).map((name) => `${kind} ${name}`),
  );
  return [...typed, ...lines].filter((event) => !typed.includes(event) || !lines.includes(event));
}

const events = readEvents();
const docs = readFileSync(DOCS, 'utf8');
const written = insertTable(docs, toTable(events));
if (!process.argv.includes('--check')) {
  writeFileSync(DOCS, written);
} else {
  const problems = findStrays(events).map(
    (stray) => `${stray} has a type or a line of observe, and not both`,
  );
  if (withoutColumns(docs) !== withoutColumns(written))
    problems.push(`the table of ${DOCS} is out of date: run node scripts/event-table.ts && npm run format`);
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
  else console.log(`events: ${events.length} of the types, each with its line and in ${DOCS}`);
}
