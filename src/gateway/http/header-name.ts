/**
 * Writes the name of a header as servers take it that hand headers on as variables, as CGI does: both
 * `X-Tenant` and `X_Tenant` become HTTP_X_TENANT. What is removed under one name must be so under both.
 */
export function toDashes(name: string): string {
  return name.includes('_') ? name.replaceAll('_', '-') : name;
}
