import {
  compose,
  Retry,
  ServiceClient,
  ServiceResponseError,
  StaticServiceDiscovery,
  Timeout,
  wrap,
} from 'holdfast';

export async function nameOf(id: string): Promise<string | undefined> {
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery({ 'user-service': ['http://127.0.0.1:8001'] }),
    callerName: 'typed-consumer',
  });
  try {
    const user = await client.call<{ name: string }>({
      service: 'user-service',
      method: 'GET',
      path: `/users/${id}`,
    });
    return user.name;
  } catch (error) {
    if (error instanceof ServiceResponseError && error.status === 404) return undefined;
    throw error;
  } finally {
    await client.close();
  }
}

export const nameWithin: (id: string) => Promise<string | undefined> = wrap(
  compose(new Timeout(1_000), new Retry({ maxAttempts: 2 })),
  nameOf,
);

// @ts-expect-error the options are typed, not any
new Retry({ maxAttempts: 'three' });
