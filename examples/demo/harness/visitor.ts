import type { Problem } from '../problem.ts';
import type { IdentityProvider } from './identity-provider.ts';

/** A request from outside. */
export interface OutsideRequest {
  /** The user whose token it carries. Default: it has none. */
  readonly user?: string;
  /** The scopes of the token. Default: none. */
  readonly scopes?: readonly string[];
  /** Default GET. */
  readonly method?: string;
  /** A path of the gateway. */
  readonly path: string;
  readonly body?: unknown;
  /** The `Idempotency-Key`. Default: it has none. */
  readonly key?: string;
}

/** A response from outside that is no success. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(`${problem.status} ${problem.title}: ${problem.detail}`);
    this.problem = problem;
  }

  get status(): number {
    return this.problem.status;
  }
}

/** Makes requests as browsers and apps do: they know the gateway, and nothing of what is behind it. */
export class Visitor {
  readonly #url: string;
  readonly #provider: IdentityProvider;

  constructor(url: string, provider: IdentityProvider) {
    this.#url = url;
    this.#provider = provider;
  }

  async send({ user, scopes = [], method = 'GET', path, body, key }: OutsideRequest): Promise<Response> {
    const headers = new Headers();
    if (user !== undefined) {
      headers.set('authorization', `Bearer ${await this.#provider.tokenOf(user, scopes)}`);
    }
    if (body !== undefined) headers.set('content-type', 'application/json');
    if (key !== undefined) headers.set('idempotency-key', key);
    return await fetch(`${this.#url}${path}`, { method, headers, body: JSON.stringify(body) });
  }

  /** @throws ProblemError if the response is no success */
  async call<T>(request: OutsideRequest): Promise<T> {
    const response = await this.send(request);
    const text = await response.text();
    const parsed = text === '' ? undefined : JSON.parse(text);
    if (!response.ok) throw new ProblemError(parsed as Problem);
    return parsed as T;
  }

  /** Makes a request that must not succeed; gives the problem that it is told. */
  async problemOf(request: OutsideRequest): Promise<Problem> {
    try {
      await this.call(request);
    } catch (error) {
      if (error instanceof ProblemError) return error.problem;
      throw error;
    }
    throw new Error(`${request.method} ${request.path} should have been rejected`);
  }
}
