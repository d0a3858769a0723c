import type { IncomingHttpHeaders } from 'node:http';
import { Rejection } from '../problem.ts';
import type { Route } from './route.ts';

/** The parts of a request by which its route is found. */
export interface RouteQuery {
  readonly method: string;
  /** In its canonical form. */
  readonly path: string;
  /** In lower case, without the port. */
  readonly host: string;
  readonly headers: IncomingHttpHeaders;
}

export interface RouteMatch {
  readonly route: Route;
  /** The values of the parameters in their order, then what the wildcard took. */
  readonly values: readonly string[];
}

/** A segment of the paths of routes, and the segments that may follow it. */
interface TreeNode {
  readonly literals: Map<string, TreeNode>;
  parameter: TreeNode | undefined;
  /** The routes whose path ends here; those with more header matches come first. */
  readonly ending: Route[];
  /** The routes that take all that begins like this. */
  readonly wildcard: Route[];
}

/** The routes of one host, or those of all hosts below one, or those of any. */
interface HostRoutes {
  /** Undefined for any host; `.example.com` for all below. */
  readonly host: string | undefined;
  readonly tree: TreeNode;
}

/** Notes why a route whose path matches does not take a request. */
interface Search {
  readonly request: RouteQuery;
  readonly values: string[];
  readonly allowed: Set<string>;
}

/**
 * Finds the route of a request. The more specific one is chosen: first by its host, then segment by
 * segment, where a literal goes before a parameter and that before a wildcard, then by the number
 * of headers that it asks for. A route that does not take the method is passed over.
 */
export class Router {
  readonly #exact = new Map<string, HostRoutes>();
  readonly #below: HostRoutes[] = [];
  readonly #any: HostRoutes = { host: undefined, tree: createNode() };

  /** @param routes of which no two take the same requests, as was checked */
  constructor(routes: readonly Route[]) {
    for (const route of routes) {
      for (const host of new Set(route.hosts ?? [undefined])) add(this.#routesOf(host).tree, route);
    }
    // The longer one is the more specific.
    this.#below.sort((one, other) => other.host!.length - one.host!.length);
  }

  /** @throws Rejection 404; or 405 if routes of the path take other methods */
  find(request: RouteQuery): RouteMatch {
    const search: Search = { request, values: [], allowed: new Set() };
    const found = this.#match(search);
    if (found !== undefined) return { route: found, values: search.values };
    if (search.allowed.size === 0) throw new Rejection(404, 'no-route', 'No route takes this request.');
    const allow = [...search.allowed].sort().join(', ');
    throw new Rejection(405, 'method-not-allowed', 'No route of this path takes the method.', { allow });
  }

  /** Gives the route of a request; undefined if there is none. */
  peek(request: RouteQuery): Route | undefined {
    return this.#match({ request, values: [], allowed: new Set() });
  }

  #match(search: Search): Route | undefined {
    const { host } = search.request;
    const exact = this.#exact.get(host);
    return (
      (exact && match(exact.tree, 1, search)) ??
      this.#findBelow(host, search) ??
      match(this.#any.tree, 1, search)
    );
  }

  #findBelow(host: string, search: Search): Route | undefined {
    for (const below of this.#below) {
      const found = host.endsWith(below.host!) ? match(below.tree, 1, search) : undefined;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #routesOf(host: string | undefined): HostRoutes {
    if (host === undefined) return this.#any;
    const wildcard = host.startsWith('*.');
    const key = wildcard ? host.slice(1) : host;
    const known = wildcard ? this.#below.find((below) => below.host === key) : this.#exact.get(key);
    if (known !== undefined) return known;
    const created = { host: key, tree: createNode() };
    if (wildcard) this.#below.push(created);
    else this.#exact.set(key, created);
    return created;
  }
}

function createNode(): TreeNode {
  return { literals: new Map(), parameter: undefined, ending: [], wildcard: [] };
}

function add(tree: TreeNode, route: Route): void {
  let node = tree;
  for (const segment of route.pattern.segments) node = childOf(node, segment);
  const routes = route.pattern.wildcard ? node.wildcard : node.ending;
  routes.push(route);
  routes.sort((one, other) => other.headers.length - one.headers.length);
}

function childOf(node: TreeNode, segment: Route['pattern']['segments'][number]): TreeNode {
  if (segment.kind === 'parameter') {
    node.parameter ??= createNode();
    return node.parameter;
  }
  let child = node.literals.get(segment.text);
  if (child === undefined) {
    child = createNode();
    node.literals.set(segment.text, child);
  }
  return child;
}

/** @param start the index in the path at which the next segment begins */
function match(node: TreeNode, start: number, search: Search): Route | undefined {
  const { path } = search.request;
  if (start >= path.length) return choose(node.ending, search) ?? chooseWildcard(node, start, search);
  const slash = path.indexOf('/', start);
  const end = slash === -1 ? path.length : slash;
  const text = path.slice(start, end);
  const literal = node.literals.get(text);
  const found = literal && match(literal, end + 1, search);
  if (found !== undefined) return found;
  if (node.parameter !== undefined) {
    search.values.push(text);
    const under = match(node.parameter, end + 1, search);
    if (under !== undefined) return under;
    search.values.pop();
  }
  return chooseWildcard(node, start, search);
}

function chooseWildcard(node: TreeNode, start: number, search: Search): Route | undefined {
  if (node.wildcard.length === 0) return undefined;
  const route = choose(node.wildcard, search);
  if (route !== undefined) search.values.push(search.request.path.slice(start));
  return route;
}

function choose(routes: readonly Route[], { request, allowed }: Search): Route | undefined {
  for (const route of routes) {
    if (!route.headers.every(({ name, value }) => request.headers[name] === value)) continue;
    if (route.methods === undefined || route.methods.has(request.method)) return route;
    for (const method of route.methods) allowed.add(method);
  }
  return undefined;
}
