/** There are no more warnings than this: with any port a host is another. */
const MAX_HOSTS = 1_000;

/** The hosts of which the process has been warned, by whichever client. */
const hosts = new Set<string>();

/** Warns the process of a host whose requests bypass the mesh: once of each. */
export function warnOfPassthrough(host: string, service: string): void {
  if (hosts.size >= MAX_HOSTS || hosts.has(host)) return;
  hosts.add(host);
  process.emitWarning(
    `Requests to ${host} bypass the mesh, with its balancing, retries and breaker, although it knows '${service}'`,
    {
      type: 'HoldfastPassthroughWarning',
      detail: `Use http://${service} without a port, or say with the option 'route' which URLs mean a service; 'strict: true' rejects all others.`,
    },
  );
}
