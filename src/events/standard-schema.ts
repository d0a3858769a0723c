/**
 * A schema of zod, valibot, arktype and others: the part of Standard Schema that is used here.
 * Source: standardschema.dev, version 1.
 */
export interface StandardSchema<Output = unknown> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
  };
}

type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

export interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** The most characters of a description: paths have keys of the data, which may be long. */
const MAX_DESCRIPTION = 1_000;

/** Describes the first issues, each with its path. */
export function describeIssues(issues: readonly SchemaIssue[]): string {
  if (issues.length === 0) return 'its schema rejects the data, and gives no reason';
  const shown = issues.slice(0, 3).map(({ message, path = [] }) => {
    const where = ['data', ...path.map((part) => String(typeof part === 'object' ? part.key : part))];
    return `${where.join('.')}: ${message}`;
  });
  const more = issues.length > shown.length ? `, and ${issues.length - shown.length} more` : '';
  return (shown.join('; ') + more).slice(0, MAX_DESCRIPTION);
}
