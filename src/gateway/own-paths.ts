/** Where the gateway tells its health. */
export const HEALTH_PATH = '/health';

/** Where a gateway with `auth` publishes the keys that identities are verified with. */
export const JWKS_PATH = '/.well-known/jwks.json';
