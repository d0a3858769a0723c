import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  type RateLimiterOptions,
  ServiceClient,
  type ServiceDiscovery,
  type ServiceOptions,
} from '../../src/index.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const rateLimit: RateLimiterOptions = { limit: 1_000, key: ({ attributes }) => String(attributes.path) };

/** All that a client can be told to keep by the name of a service. */
export const everything: ServiceOptions = {
  cache: {},
  coalesce: true,
  rateLimit,
  hedge: {},
  adaptiveThrottle: {},
  adaptiveConcurrency: {},
};

/** The heap in use, in bytes, once what can be collected is. */
export async function heapInUse(): Promise<number> {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  collectGarbage();
  await new Promise(setImmediate);
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

/**
 * Calls `count` services that nobody has registered, `atOnce` at a time.
 *
 * @param first the number in the name of the first one
 * @returns how those calls ended that were not rejected for want of an instance
 */
export async function callUnknown(
  client: ServiceClient,
  count: number,
  atOnce: number,
  first = 0,
): Promise<unknown[]> {
  const unexpected: unknown[] = [];
  let next = first;
  const worker = async () => {
    while (next < first + count) {
      const number = next++;
      const call = client.call({ service: `nobody-${number}`, path: '/users/u1', timeout: 20_000 });
      await call.then(
        (value) => unexpected.push(value),
        (error) => error.code === 'ERR_NO_INSTANCE' || unexpected.push(error),
      );
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return unexpected;
}

export function clientOf(discovery: ServiceDiscovery, options: ServiceOptions = everything): ServiceClient {
  return new ServiceClient({ discovery, defaults: options });
}
