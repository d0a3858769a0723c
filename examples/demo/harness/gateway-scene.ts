import { PAY, ROUTES } from '../gateway/routes.ts';
import type { ShopGateway } from '../gateway/shop-gateway.ts';
import { type OutsideRequest, ProblemError, type Visitor } from './visitor.ts';

/** More than the route of users lets in at once. */
const READS = 30;

/** The scene of the demo in which the gateway says no, and learns a route while it is open. */
export class GatewayScene {
  readonly #gateway: ShopGateway;
  readonly #visitor: Visitor;
  readonly #narrate: (text: string) => void;

  constructor(gateway: ShopGateway, visitor: Visitor, narrate: (text: string) => void) {
    this.#gateway = gateway;
    this.#visitor = visitor;
    this.#narrate = narrate;
  }

  async play(): Promise<void> {
    await this.#rejectStrangers();
    await this.#limitReads();
    await this.#reload();
  }

  async #rejectStrangers(): Promise<void> {
    await this.#tell('Without a token', { path: '/api/v1/users/ada' });
    const refund = { method: 'POST', path: '/api/v1/payments/refunds', body: { orderId: 'never-placed' } };
    await this.#tell('ada, who asks for a refund', { ...refund, user: 'ada' });
    await this.#tell('A cashier, who has the scope', { ...refund, user: 'cashier', scopes: [PAY] });
    await this.#tell('ada, who asks for the orders of grace', {
      user: 'ada',
      path: '/api/v1/orders?userId=grace',
    });
  }

  /** Tells what a request gets. */
  async #tell(who: string, request: OutsideRequest): Promise<void> {
    this.#narrate(`   ${who}: ${await this.#outcomeOf(request)}`);
  }

  async #outcomeOf(request: OutsideRequest): Promise<string> {
    try {
      return `200 ${JSON.stringify(await this.#visitor.call(request))}`;
    } catch (error) {
      if (error instanceof ProblemError) return error.message;
      throw error;
    }
  }

  async #limitReads(): Promise<void> {
    const read = { user: 'ada', path: '/api/v1/users/ada' };
    const responses = await Promise.all(Array.from({ length: READS }, () => this.#visitor.send(read)));
    await Promise.all(responses.map((response) => response.text()));
    const rejected = responses.filter(({ status }) => status === 429);
    const wait = rejected[0]?.headers.get('retry-after');
    const accepted = responses.filter(({ ok }) => ok).length;
    this.#narrate(
      `   ada reads ${READS} times at once: ${accepted} get through, ${rejected.length} get 429, Retry-After: ${wait}.`,
    );
  }

  /** Adds a route, while requests are under way. */
  async #reload(): Promise<void> {
    const route = { path: '/api/v2/orders', methods: ['GET'], service: 'order-service', rewrite: '/orders' };
    const list = (version: string) => ({ user: 'ada', path: `/api/${version}/orders?userId=ada` });
    const { status } = await this.#visitor.send(list('v2'));
    const underWay = Array.from({ length: 20 }, () => this.#visitor.send(list('v1')));
    await this.#gateway.reload({ routes: [...ROUTES, route] });
    const added = await this.#visitor.send(list('v2'));
    const kept = (await Promise.all(underWay)).filter(({ ok }) => ok).length;
    this.#narrate(
      `   A reload adds /api/v2/orders: ${status} before, ${added.status} after; of 20 requests under way ${kept} succeed.`,
    );
  }
}
