/** The most warnings of a process: each port of a host counts as another host. */
const MAX_HOSTS = 1_000;

/** The hosts of which the process was warned, by any of its clients. */
const hosts = new Set<string>();

/** Warns the process of a host whose requests bypass the mesh, once for each host. */
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
