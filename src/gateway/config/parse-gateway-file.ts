import { GatewayConfigError } from '../../errors.ts';
import { nearestName } from '../../internal/near-name.ts';
import { checkConfig } from './cross-checks.ts';
import type { GatewayFileOptions } from './file-options.ts';
import { fileOptions } from './file-shapes.ts';
import { type Environment, formatPath, OptionPlace } from './problems.ts';
import { parseYaml } from './yaml-text.ts';

/**
 * Parses the text of a file, and reads its options.
 *
 * @throws GatewayConfigError that tells all that is wrong, with file, line and reason
 */
export async function parseGatewayFile(
  text: string,
  file: string,
  env: Environment,
): Promise<GatewayFileOptions> {
  const { value, lineOf } = await parseYaml(text, file);
  const place = new OptionPlace([], [], env);
  const result = fileOptions.read(value, place) as GatewayFileOptions;
  if (fileOptions.accepts(value)) {
    checkConfig(result, place);
    checkServices(result, place);
  }
  if (place.problems.length === 0) return result;
  const problems = place.problems
    .map(({ path, reason }) => ({ path: formatPath(path), line: lineOf(path), reason }))
    .sort((one, other) => (one.line ?? 0) - (other.line ?? 0));
  throw new GatewayConfigError(problems, { file });
}

/** Checks that the services of the routes are those of a discovery that lists them in the file. */
function checkServices({ routes, discovery }: GatewayFileOptions, place: OptionPlace): void {
  const kind = (['static', 'dns'] as const).find((one) => discovery?.[one] !== undefined);
  if (kind === undefined || !place.isClean('discovery') || !Array.isArray(routes)) return;
  const names = Object.keys(discovery![kind]!);
  for (const [index, { service }] of routes.entries()) {
    if (!place.isClean('routes', index) || names.includes(service)) continue;
    const near = nearestName(service, names);
    const hint = near === undefined ? '' : `: is '${near}' meant?`;
    place.at('routes', index, 'service').report(`is not in \`discovery.${kind}\`${hint}`);
  }
}
