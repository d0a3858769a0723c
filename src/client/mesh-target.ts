import { isName, isServiceHost } from '../discovery/service-instance.ts';
import { InvalidRequestError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { boolean, isFunction, type RenamedOptions, validateOptions } from '../internal/validate.ts';

/** The options that say which URLs mean a service of the mesh. */
export interface MeshOptions {
  /**
   * Gives the name of the service that a URL of http or https means; undefined if it means none of
   * the mesh. Default: the host, where it has no dot, is not `localhost`, and no port is given:
   * `http://user-service/users/1`.
   */
  route?: ((url: URL) => string | undefined) | undefined;
  /**
   * Rejects requests to hosts that are no service of the mesh, before anything is sent, instead of
   * passing them through. Default false.
   */
  strict?: boolean | undefined;
}

export const MESH_CHECKS = { route: isFunction, strict: boolean };

/** The former name of the option for hosts that are no service. */
export const RENAMED_MESH_OPTIONS: RenamedOptions = { fallback: 'passthrough' };

/** A host that is outside the mesh, but looks like the host of a service. */
export interface NearMiss {
  /** The host as it was written, with its port. */
  readonly host: string;
  /** The services that may have been meant, the likeliest first. */
  readonly services: readonly string[];
}

/** The meaning of a URL: a service of the mesh, or a host that may be taken for one. */
interface Target {
  readonly service: string | undefined;
  readonly nearMiss: NearMiss | undefined;
}

/** The most origins whose meaning is remembered. */
const MAX_ORIGINS = 1_000;

/**
 * Tells which service of the mesh a URL means. `service://user-service/…` always means a service,
 * whose name keeps its case there; other URLs mean one as the options say.
 */
export class MeshTargets {
  readonly #route: (url: URL) => string | undefined;
  readonly #routeOption: string;
  readonly #strict: boolean;
  /** #byOrigin tells whether the host and the port of a URL alone decide which service it means. */
  readonly #byOrigin: boolean;
  readonly #known = growingLru<string, Target>(MAX_ORIGINS);

  /** @throws TypeError naming the option that is not allowed */
  constructor(owner: string, { route, strict = false }: MeshOptions = {}) {
    validateOptions(owner, { route, strict }, MESH_CHECKS);
    this.#route = route ?? serviceOfHost;
    this.#routeOption = `${owner} option 'route'`;
    this.#strict = strict;
    this.#byOrigin = route === undefined;
  }

  /**
   * Gives what a URL of this origin means; remembers it unless a `route` decides. `parse` gives the URL.
   *
   * @throws InvalidRequestError as `serviceOf` does
   */
  targetOf(origin: string, parse: () => URL): Target {
    let target = this.#byOrigin ? this.#known.get(origin) : undefined;
    if (target === undefined) {
      const url = parse();
      const service = this.serviceOf(url);
      target = { service, nearMiss: service === undefined ? this.nearMissOf(url) : undefined };
      if (this.#byOrigin) this.#known.set(origin, target);
    }
    return target;
  }

  /**
   * Gives the service that the URL means; undefined if it means none of the mesh.
   *
   * @throws InvalidRequestError if it means none and `strict` is set, or if the name is malformed
   */
  serviceOf(url: URL): string | undefined {
    if (url.protocol === 'service:') return readServiceUrl(url);
    const web = url.protocol === 'http:' || url.protocol === 'https:';
    const service = web ? (decided(this.#route(url), this.#routeOption) ?? undefined) : undefined;
    if (service === undefined) {
      if (this.#strict) {
        const hint = this.#byOrigin && web && url.port !== '' ? ': the URL of a service has no port' : '';
        throw new InvalidRequestError(`${url.origin} is no service of the mesh${hint}`);
      }
      return undefined;
    }
    if (!isName(service)) {
      throw new InvalidRequestError(
        `the route of ${url.origin} gave no name of a service: ${String(service)}`,
      );
    }
    return service;
  }

  /**
   * Gives the services that may have been meant by a URL outside the mesh: the URL of a service
   * with a port, or with its name in full, as in Compose and Kubernetes. Undefined where a `route`
   * decides.
   */
  nearMissOf({ protocol, hostname, host }: URL): NearMiss | undefined {
    if (!this.#byOrigin || (protocol !== 'http:' && protocol !== 'https:')) return undefined;
    const name = hostname.replace(/\.$/, '');
    if (!isName(name) || name === 'localhost') return undefined;
    const inKubernetes = KUBERNETES_SERVICE.exec(name)?.[1];
    return { host, services: inKubernetes === undefined ? [name] : [name, inKubernetes] };
  }
}

/**
 * The name of a Kubernetes Service in the cluster:
 * https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
 */
const KUBERNETES_SERVICE = /^([^.]+)\.[^.]+\.svc(?:\.|$)/;

/** Reads the service of a `service://` URL. Its error shows neither the query nor a password. */
function readServiceUrl({ protocol, host, hostname, port, pathname }: URL): string {
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
