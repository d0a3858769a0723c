import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { redisUrl } from '../support/redis.ts';
import { startServer } from '../support/server.ts';
import { USER_SERVICE_TLS } from '../support/tls.ts';
import { finish, type Running, registry, start } from './helpers.ts';

async function fileOf(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-gateway-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const path = join(folder, 'gateway.yaml');
  await writeFile(path, text);
  return path;
}

const ROUTES = 'routes: [{ path: /*, service: shop, auth: false }]\n';
/** Lists the service of the route, which has no instance. */
const NO_SHOP = 'discovery: { static: { shop: [] } }';

/** Nobody balances the load over the gateways of these tests. */
const SERVER = 'server: { drainDelay: 0 }\n';

async function startShop(): Promise<string> {
  return (await startServer((request, response) => void response.end(request.url))).origin;
}

const urlIn = (text: string) => /listens at (\S+)/.exec(text.replace(/\\?"/g, ' '))![1]!;

/** Starts a gateway, and gives its URL once it listens. */
async function startGateway(path: string, args: string[] = [], env: Record<string, string> = {}) {
  const running = start(['gateway', '--config', path, '--port', '0', ...args], { env });
  await vi.waitFor(() => expect(running.err).toContain('listens at'));
  return { running, url: urlIn(running.err) };
}

/** Sends a request over a connection of its own: a gateway that ends waits a second for one that is idle. */
const get = (url: string) => fetch(url, { headers: { connection: 'close' } });

/** Lets seconds pass until it has written the text. Timers have to be faked before it starts. */
async function passUntil(running: Running, text: string): Promise<void> {
  await vi.waitFor(async () => {
    await vi.advanceTimersByTimeAsync(1_000);
    expect(running.err).toContain(text);
  });
}

function fakeTimers(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'], shouldAdvanceTime: true });
}

describe('holdfast gateway', () => {
  it('holdfast gateway --check says that a file is allowed, and starts nothing', async () => {
    const path = await fileOf(`${ROUTES}discovery: { static: { shop: ['http://10.0.0.1:8001'] } }`);
    expect(await finish(['gateway', '--config', path, '--check'])).toEqual({
      exitCode: 0,
      out: `${path} is allowed: 1 route\n`,
      err: '',
    });
  });

  it('holdfast gateway --check tells all that is wrong with a file, with its lines, and exits with 1', async () => {
    const path = await fileOf(
      'routes:\n  - { path: /a, service: b, timeout: soon }\n  - { path: /b }\ncor: true\n',
    );
    const { exitCode, err } = await finish(['gateway', '--config', path, '--check']);
    expect(exitCode).toBe(1);
    expect(err.trimEnd().split('\n')).toHaveLength(4);
    expect(err).toContain(`${path}:2: routes[0].timeout must be a number`);
    expect(err).toContain(`${path}:3: routes[1] needs the option 'service'`);
    expect(err).toContain(`${path}:4: cor is not known: is 'cors' meant?`);
  });

  it.each([
    [
      'a misspelt option of helmet',
      'helmet: { frameguards: true }',
      /:2: helmet\.frameguards is not known: is 'frameguard' meant\?/,
    ],
    [
      'a nonce, which would be one for all responses',
      'helmet: { enableCSPNonces: true }',
      /:2: helmet\.enableCSPNonces is not known/,
    ],
    [
      'a value that helmet does not take',
      "helmet: { contentSecurityPolicy: { directives: { 'default src!': [a] } } }",
      /helmet is rejected: Content-Security-Policy/,
    ],
    [
      'a route where the gateway itself responds',
      'helmet: true',
      /:1: routes\[0\]\.path is where the gateway/,
      ROUTES.replace('/*', '/health'),
    ],
    [
      'a service that is not listed',
      'helmet: true',
      /:1: routes\[0\]\.service is not in `discovery\.static`: is 'shop' meant\?/,
      ROUTES.replace('shop', 'shopp'),
    ],
  ])('holdfast gateway --check finds %s', async (_name, line, problem, routes = ROUTES) => {
    const path = await fileOf(`${routes}${line}\n${NO_SHOP}\n`);
    const { exitCode, err } = await finish(['gateway', '--config', path, '--check']);
    expect(err).toMatch(problem);
    expect(exitCode).toBe(1);
  });

  it('holdfast gateway --check finds a service that has no name in DNS', async () => {
    const path = await fileOf(`${ROUTES}discovery: { dns: { other: { name: other.example } } }\n`);
    const { err } = await finish(['gateway', '--config', path, '--check']);
    expect(err).toContain('routes[0].service is not in `discovery.dns`');
  });

  it('holdfast gateway says at once that its file is a pipe or a folder', async () => {
    const folder = dirname(await fileOf(''));
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    for (const path of [pipe, folder]) {
      const { exitCode, err } = await finish(['gateway', '--config', path]);
      expect(err).toContain(`'${path}' is not a file`);
      expect(exitCode).toBe(1);
    }
  });

  it('holdfast gateway says that a file is missing, or does not say where services are', async () => {
    expect((await finish(['gateway', '--config', '/none.yaml'])).err).toMatch(/no such file/);
    const path = await fileOf(ROUTES);
    expect((await finish(['gateway', '--config', path])).err).toContain("needs the option 'discovery'");
  });

  it('holdfast gateway rejects a command line that it does not understand', async () => {
    for (const args of [
      [],
      ['--config', 'a', '--port', '70000'],
      ['a', '--config', 'a'],
      ['--config', 'a', '--watch'],
    ]) {
      expect((await finish(['gateway', ...args])).exitCode).toBe(2);
    }
  });

  it('holdfast gateway sends requests to services of a static list until it is told to end', async () => {
    const path = await fileOf(`${ROUTES}${SERVER}discovery: { static: { shop: ['\${env:SHOP}'] } }\n`);
    const { running, url } = await startGateway(path, [], { SHOP: await startShop() });
    expect(await (await get(`${url}/hello`)).text()).toBe('/hello');
    running.interrupt();
    expect(await running.ended).toBe(0);
    await expect(get(`${url}/hello`)).rejects.toThrow();
  });

  it('holdfast gateway finds services and counts requests in Redis', async () => {
    const { register, keyPrefix } = registry(redisUrl(), { allowLoopback: true });
    const { port } = new URL(await startShop());
    await register('a', { serviceName: 'shop', host: '127.0.0.1', port: Number(port) });
    const redis = `redis: { url: '\${env:REDIS_URL}', keyPrefix: ${keyPrefix} }`;
    const limit = 'rateLimit: { limit: 1, interval: 60000 }';
    const stores = `discovery: { ${redis} }\nrateLimitStore: { ${redis} }\n`;
    const path = await fileOf(`${ROUTES}${SERVER}${stores}${limit}\n`);
    const { url } = await startGateway(path, ['--json'], { REDIS_URL: redisUrl() });
    expect((await get(url)).status).toBe(200);
    expect((await get(url)).status).toBe(429);
  });

  it('holdfast gateway takes a changed file over, and says so; a bad one changes nothing', async () => {
    fakeTimers();
    const shop = await startShop();
    const others = `${SERVER}discovery: { static: { shop: ['${shop}'] } }\n`;
    const path = await fileOf(ROUTES + others);
    const { running, url } = await startGateway(path);
    await writeFile(path, `${ROUTES.replace('/*', '/new')}${others}`);
    await passUntil(running, 'was reloaded');
    expect((await get(`${url}/old`)).status).toBe(404);
    expect((await get(`${url}/new`)).status).toBe(200);
    await writeFile(path, 'routes: []');
    await passUntil(running, 'the old configuration stays');
    expect((await get(`${url}/new`)).status).toBe(200);
  });

  it('holdfast gateway --check reads the key and the certificate that a file names', async () => {
    const path = await fileOf(
      `${ROUTES}${NO_SHOP}\nserver: { tls: { keyFile: key.pem, certFile: cert.pem } }\n`,
    );
    const check = () => finish(['gateway', '--config', path, '--check']);
    expect(await check()).toMatchObject({
      exitCode: 1,
      err: expect.stringMatching(/ENOENT.*(key|cert)\.pem/),
    });
    await writeFile(join(dirname(path), 'key.pem'), USER_SERVICE_TLS.key);
    await writeFile(join(dirname(path), 'cert.pem'), 'no certificate');
    expect(await check()).toMatchObject({
      exitCode: 1,
      err: expect.stringMatching(/key\.pem and cert\.pem are no key and its certificate/),
    });
    await writeFile(join(dirname(path), 'cert.pem'), USER_SERVICE_TLS.cert);
    expect((await check()).exitCode).toBe(0);
  });

  it('holdfast gateway tells at its start that its discovery is away, and no password', async () => {
    const url = `redis://:hunter2@127.0.0.1:${await freePort()}`;
    const path = await fileOf(`${ROUTES}${SERVER}discovery: { redis: { url: '${url}' } }\n`);
    fakeTimers();
    const { running } = await startGateway(path);
    await passUntil(running, "warn: the instances of 'shop' are not known");
    expect(running.err).not.toContain('hunter2');
  });

  it('holdfast gateway tells that circuit breakers have opened, those of versions and of new routes too', async () => {
    const away = `http://127.0.0.1:${await freePort()}`;
    const others = `${SERVER}discovery: { static: { shop: ['${away}'], pay: ['${away}'] } }\n`;
    const path = await fileOf(ROUTES + others);
    fakeTimers();
    const { running, url } = await startGateway(path);
    const failAt = async (route: string) => {
      for (let count = 0; count < 30; count++) await (await get(url + route)).body?.cancel();
    };
    await failAt('/a');
    expect(running.err).toContain("warn: the circuit breaker 'shop' is open: too many calls failed");
    await writeFile(path, `${ROUTES.replace('shop', 'pay')}${others}`);
    await passUntil(running, 'was reloaded');
    await failAt('/a');
    expect(running.err.match(/the circuit breaker '(shop|pay)' is open/g)).toHaveLength(2);
  });

  it('holdfast gateway writes a line for each request to standard output, if its file says so', async () => {
    const path = await fileOf(
      `${ROUTES}discovery: { static: { shop: ['${await startShop()}'] } }\nserver: { accessLog: true, drainDelay: 0 }\n`,
    );
    const text = await startGateway(path);
    await get(`${text.url}/a?token=secret`);
    await vi.waitFor(() => expect(text.running.out).not.toBe(''));
    expect(text.running.out).toMatch(
      /^\S+Z 127\.0\.0\.1 "GET \/a" 200 15 [\d.]+ms shop \S+:\d+ [\da-f-]{36}\n$/,
    );
    const json = await startGateway(path, ['--json']);
    await get(`${json.url}/a?token=secret`);
    await vi.waitFor(() => expect(json.running.out).not.toBe(''));
    expect(JSON.parse(json.running.out)).toMatchObject({ method: 'GET', path: '/a', status: 200, bytes: 15 });
  });

  it('holdfast gateway says that its port is taken', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const path = await fileOf(ROUTES + NO_SHOP);
    const { exitCode, err } = await finish(['gateway', '--config', path, '--port', String(port)]);
    expect(exitCode).toBe(1);
    expect(err).toMatch(/EADDRINUSE/);
  });
});
