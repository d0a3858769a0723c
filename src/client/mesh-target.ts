import { isName, isServiceHost } from '../discovery/service-instance.ts';
import { InvalidRequestError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { boolean, isFunction, type RenamedOptions, validateOptions } from '../internal/validate.ts';

/** Which URLs mean a service of the mesh. */
export interface MeshOptions {
  /**
   * The name of the service that a URL of http or https means, or undefined if it is none of the mesh's. Default: the
   * host, where it has no dot, is not `localhost`, and no port is given: `http://user-service/users/1`.
   */
  route?: ((url: URL) => string | undefined) | undefined;
  /** Rejects what is not the mesh's, before anything is sent, instead of letting it pass. Default false. */
  strict?: boolean | undefined;
}

export const MESH_CHECKS = { route: isFunction, strict: boolean };

/** The former name of the option for hosts that are no service. */
export const RENAMED_MESH_OPTIONS: RenamedOptions = { fallback: 'passthrough' };

/** A host that is outside the mesh, but looks like the host of a service. */
export interface NearMiss {
  /** As it was written, with its port. */
  readonly host: string;
  /** The services that may have been meant, the likeliest first. */
  readonly services: readonly string[];
}

/**
 * Tells which service of the mesh a URL means. `service://user-service/…` always means the mesh, and there the name
 * keeps its case; other URLs mean it as the options say.
 */
export class MeshTargets {
  readonly #route: (url: URL) => string | undefined;
  readonly #routeOption: string;
  readonly #strict: boolean;
  /** Whether the host and the port of a URL are all that decides. */
  readonly byOrigin: boolean;

  /** @throws TypeError naming the option that is not what it must be. */
  constructor(owner: string, { route, strict = false }: MeshOptions = {}) {
    validateOptions(owner, { route, strict }, MESH_CHECKS);
    this.#route = route ?? serviceOfHost;
    this.#routeOption = `${owner} option 'route'`;
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
    const service = web ? (decided(this.#route(url), this.#routeOption) ?? undefined) : undefined;
    if (service === undefined) {
      if (this.#strict) {
        const hint = this.byOrigin && web && url.port !== '' ? ': the URL of a service has no port' : '';
        throw new InvalidRequestError(`${url.origin} is no service of the mesh${hint}`);
      }
      return undefined;
    }
    if (!isName(service)) {
      throw new InvalidRequestError(`the route of ${url.origin} gave what is no name: ${String(service)}`);
    }
    return service;
  }

  /**
   * What a URL that is not the mesh's may have been meant for: a service whose URL was given a port, or a name in full, as
   * in Compose and Kubernetes. Undefined where a `route` decides.
   */
  nearMissOf({ protocol, hostname, host }: URL): NearMiss | undefined {
    if (!this.byOrigin || (protocol !== 'http:' && protocol !== 'https:')) return undefined;
    const name = hostname.replace(/\.$/, '');
    if (!isName(name) || name === 'localhost') return undefined;
    const inKubernetes = KUBERNETES_SERVICE.exec(name)?.[1];
    return { host, services: inKubernetes === undefined ? [name] : [name, inKubernetes] };
  }
}

/** A Kubernetes Service's name in the cluster: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/ */
const KUBERNETES_SERVICE = /^([^.]+)\.[^.]+\.svc(?:\.|$)/;

/** An error shows neither the query nor a password. */
function serviceOfUrl({ protocol, host, hostname, port, pathname }: URL): string {
  if (port !== '' || !isName(hostname)) {
    throw new InvalidRequestError(
      `a URL of a service is service://name/path, the name of letters, digits, '.', '_' and '-'; got ${`${protocol}//${host}${pathname}`.slice(0, 100)}`,
    );
  }
  return hostname;
}

function serviceOfHost({ hostname, port }: URL): string | undefined {
  return port === '' && isServiceHost(hostname) ? hostname : undefined;
}
