/** There are no more warnings than this: with any port a host is another. */
const MAX_HOSTS = 1_000;

/** Warns the process of hosts whose requests bypass the mesh, once of each. */
export class PassthroughWarnings {
  readonly #hosts = new Set<string>();

  warn(host: string, service: string): void {
    if (this.#hosts.size >= MAX_HOSTS || this.#hosts.has(host)) return;
    this.#hosts.add(host);
    process.emitWarning(
      `Requests to ${host} bypass the mesh, with its balancing, retries and breaker, although it knows '${service}'`,
      {
        type: 'HoldfastPassthroughWarning',
        detail: `Use http://${service} without a port, or say with the option 'route' which URLs mean a service; 'strict: true' rejects all others.`,
      },
    );
  }
}
