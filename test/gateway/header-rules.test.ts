import { describe, expect, it } from 'vitest';
import { OPEN_ROUTE, startRecordedGateway } from '../support/gateway.ts';

describe('the header rules of a route', () => {
  it('set and remove headers under both names that a service may take for one', async () => {
    const requestHeaders = { set: { 'x-tenant': 'ours' }, remove: ['X-Debug', 'x_trace'] };
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, requestHeaders }] });
    const client = await open();
    client.send(
      'GET /a HTTP/1.1\r\nHost: a\r\nX_Tenant: evil\r\nX_Debug: 1\r\nX-Trace: 1\r\nX_Other: 1\r\n\r\n',
    );
    expect(await client.status()).toBe(200);
    expect(upstream.bytes.match(/^x[-_](tenant|debug|trace|other): .*$/gm)).toEqual([
      'x_other: 1',
      'x-tenant: ours',
    ]);
  });

  it('replace and remove what the gateway itself tells of the client', async () => {
    const requestHeaders = {
      set: { 'x-forwarded-proto': 'https' },
      remove: ['forwarded', 'X-Forwarded-For'],
    };
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, requestHeaders }] });
    const client = await open();
    client.send('GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    expect(await client.status()).toBe(200);
    expect(upstream.bytes.match(/^(?:x-)?forwarded.*(?=\r$)/gm)).toEqual([
      'x-forwarded-host: shop.example',
      'x-forwarded-proto: https',
    ]);
  });
});
