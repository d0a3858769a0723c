import { verifyIdentity } from '../../../src/gateway/index.ts';
import { currentRequestContext, type Identity, type ServerGuardOptions } from '../../../src/index.ts';
import { ForbiddenError } from '../errors.ts';

type IdentityVerifier = NonNullable<ServerGuardOptions['identity']>;

/** The shop itself, whose sagas call the services without the gateway. */
const SHOP: Identity = { kind: 'apiKey', subject: 'shop', scopes: new Set(), issuer: undefined };

/**
 * Verifies the identity that the gateway has signed. The steps of a saga have none: they are the only
 * requests with PUT, for which the gateway has no route.
 *
 * @param keys those of the gateway
 */
export function identifyCustomers(keys: string): IdentityVerifier {
  const verify = verifyIdentity({ keys, audience: 'order-service' });
  return (request) => (request.method === 'PUT' ? SHOP : verify(request));
}

/**
 * Checks that a request was made by that customer. The gateway knows who it is, and only this service
 * knows whose an order is. Without a gateway, as in some tests, nobody is known.
 *
 * @throws ForbiddenError
 */
export function checkCustomer(userId: string): void {
  const { identity } = currentRequestContext() ?? {};
  if (identity !== undefined && identity.subject !== userId)
    throw new ForbiddenError(`'${identity.subject}' cannot see or place orders of another customer`);
}
