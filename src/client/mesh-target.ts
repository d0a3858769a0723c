import { isName } from '../discovery/service-instance.ts';
import { InvalidRequestError } from '../errors.ts';
import { boolean, func, validateOptions } from '../internal/validate.ts';

/** Which URLs mean a service of the mesh. */
export interface MeshOptions {
  /**
   * The name of the service that a URL of http or https means, or undefined if it is none of the mesh's. Default: the
   * host, where it has no dot, is not `localhost`, and no port is given: `http://user-service/users/1`.
   */
  route?: ((url: URL) => string | undefined) | undefined;
  /** Refuses what is not the mesh's, before anything is sent, instead of letting it pass. Default false. */
  strict?: boolean | undefined;
}

export const MESH_CHECKS = { route: func, strict: boolean };

/**
 * Tells which service of the mesh a URL means. `service://user-service/…` always means the mesh, and there the name
 * keeps its case; other URLs mean it as the options say.
 */
export class MeshTargets {
  readonly #route: (url: URL) => string | undefined;
  readonly #strict: boolean;
  /** Whether the host and the port of a URL are all that decides. */
  readonly byOrigin: boolean;

  /** @throws TypeError naming the option that is not what it must be. */
  constructor(owner: string, { route, strict = false }: MeshOptions = {}) {
    validateOptions(owner, { route, strict }, MESH_CHECKS);
    this.#route = route ?? serviceOfHost;
    this.#strict = strict;
    this.byOrigin = route === undefined;
  }

  /**
   * @returns undefined if it is not the mesh's
   * @throws InvalidRequestError if it is not and `strict` is set, or if it names no service
   */
  serviceOf(url: URL): string | undefined {
    if (url.protocol === 'service:') return serviceOfUrl(url);
    const web = url.protocol === 'http:' || url.protocol === 'https:';
    const service = web ? (this.#route(url) ?? undefined) : undefined;
    if (service === undefined) {
      if (this.#strict) throw new InvalidRequestError(`${url.origin} is no service of the mesh`);
      return undefined;
    }
    if (!isName(service)) {
      throw new InvalidRequestError(`the route of ${url.origin} gave what is no name: ${String(service)}`);
    }
    return service;
  }
}

/** An error shows neither the query nor a password. */
function serviceOfUrl({ protocol, host, hostname, port, pathname }: URL): string {
  if (port !== '' || !isName(hostname)) {
    throw new InvalidRequestError(
      `a URL of a service is service://name/path, the name of letters, digits, '.', '_' and '-'; got ${`${protocol}//${host}${pathname}`.slice(0, 100)}`,
    );
  }
  return hostname;
}

/** Dots are in IPv4 addresses as well, and what holds colons, an IPv6 address, is in brackets. */
function serviceOfHost({ hostname, port }: URL): string | undefined {
  const plain = port === '' && hostname !== 'localhost' && /^[^.[]+$/.test(hostname);
  return plain && isName(hostname) ? hostname : undefined;
}
