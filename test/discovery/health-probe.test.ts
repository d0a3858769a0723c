import { createServer as createHttp2Server } from 'node:http2';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { describe, expect, it, type Mock, onTestFinished, vi } from 'vitest';
import { createHttpProbe, type HttpProbeOptions } from '../../src/discovery/health-probe.ts';
import type { InstanceRegistration } from '../../src/discovery/service-instance.ts';
import { TimeoutError } from '../../src/errors.ts';
import { collectWarnings, fling, follow, listenersOn, rejectionOf } from '../policies/helpers.ts';
import { type Handler, startServer } from '../support/server.ts';
import { instance } from './health-helpers.ts';

/** Waits until the check passes, also on a machine that has much to do. */
const eventually = (check: () => void) => vi.waitFor(check, { timeout: 4_000, interval: 5 });

/** A finding of a probe within which this process was not blocked: on a busy machine it probes again. */
async function unstalled<T extends { cause?: unknown }>(probe: () => Promise<T>): Promise<T> {
  for (;;) {
    const finding = await probe().catch((error) => ({ cause: error }) as T);
    if (!(finding.cause instanceof TimeoutError && finding.cause.stalled > 0)) return finding;
  }
}

function probeOf(options: Partial<HttpProbeOptions> = {}) {
  const isExpected = (status: number) => status === 200;
  const probe = createHttpProbe({ path: '/health', isExpected, timeout: 2_000, connect: {}, ...options });
  return (fields: Partial<InstanceRegistration>, signal = new AbortController().signal) =>
    probe(instance('u1', { host: '127.0.0.1', ...fields }), signal);
}

/** A server that speaks whatever `serve` says over TCP. */
async function startTcpServer(serve: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  return listen(server, () => {
    for (const socket of sockets) socket.destroy();
  });
}

async function listen(server: Server, end: () => void): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    end();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

const respondWith =
  (status: number, headers = {}, body = ''): Handler =>
  (_request, response) => {
    response.writeHead(status, headers);
    response.end(body);
  };

describe('an instance that is probed', () => {
  it('an instance that is probed passes if its response has the expected status', async () => {
    const { port, requests } = await startServer(respondWith(200, {}, 'all is well'));
    expect(await probeOf()({ port })).toEqual({ passed: true, reason: 'it responded with 200' });
    expect(requests).toMatchObject([
      { method: 'GET', url: '/health', headers: { 'user-agent': 'holdfast-health-checker' } },
    ]);
  });

  it.each([204, 404, 500, 503])(
    'an instance that is probed fails if it responds with %i and another status is expected',
    async (status) => {
      const { port } = await startServer(respondWith(status));
      expect(await probeOf()({ port })).toEqual({ passed: false, reason: `it responded with ${status}` });
      expect(await probeOf({ isExpected: (got) => got === status })({ port })).toMatchObject({
        passed: true,
      });
    },
  );

  it('an instance that is probed gets the request at its own path if it has one, which may be a URL', async () => {
    const { port, requests, origin } = await startServer(respondWith(200));
    const probe = probeOf();
    for (const healthCheckUrl of ['/ready?deep=1#top', `${origin}/live`, 'status', '?a=b'])
      expect(await probe({ port, healthCheckUrl })).toMatchObject({ passed: true });
    expect(requests.map(({ url }) => url)).toEqual(['/ready?deep=1', '/live', '/status', '/?a=b']);
  });

  it('an instance that is probed fails if it redirects, and the redirect is not followed', async () => {
    const elsewhere = await startServer(respondWith(200));
    for (const status of [301, 302, 303, 307, 308]) {
      const { port, requests } = await startServer(
        respondWith(status, { location: `${elsewhere.origin}/health` }),
      );
      expect(await probeOf()({ port })).toMatchObject({
        passed: false,
        reason: `it responded with ${status}`,
      });
      expect(requests).toHaveLength(1);
    }
    expect(elsewhere.requests).toEqual([]);
  });

  it('an instance that is probed fails with the reason if nothing listens there', async () => {
    const { port, stop } = await startServer(respondWith(200));
    await stop();
    expect(await probeOf()({ port })).toEqual({
      passed: false,
      reason: `connect ECONNREFUSED 127.0.0.1:${port}`,
      cause: expect.objectContaining({ code: 'ECONNREFUSED' }),
    });
  });

  it('an instance that is probed fails if it hangs up, before or in the middle of its response', async () => {
    const hangsUp = await startServer((request) => void request.socket.destroy());
    const breaksOff = await startServer((_request, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('half', () => response.destroy());
    });
    for (const { port } of [hangsUp, breaksOff]) {
      const { passed, reason, cause } = await probeOf()({ port });
      expect([passed, reason]).toEqual([false, (cause as Error).message]);
    }
  });

  it('an instance that is probed fails if it speaks no HTTP', async () => {
    const port = await startTcpServer((socket) => socket.end('220 mail.example ESMTP\r\n'));
    expect(await probeOf()({ port })).toMatchObject({ passed: false });
  });

  it('an instance that is probed may speak HTTP/2', async () => {
    const server = createHttp2Server((_request, response) => response.end('well'));
    const closed: boolean[] = [];
    server.on('session', (session) => session.on('close', () => closed.push(true)));
    const port = await listen(server, () => {});
    expect(await probeOf({ connect: { useH2c: true } as never })({ port })).toMatchObject({ passed: true });
    // Sooner than an idle one would be.
    await vi.waitFor(() => expect(closed).toEqual([true]), { timeout: 2_000, interval: 5 });
  });

  it('an instance that is probed is connected to anew each time', async () => {
    const { port, requests } = await startServer(respondWith(200));
    const probe = probeOf();
    for (let check = 0; check < 3; check++) await probe({ port });
    expect(new Set(requests.map(({ socket }) => socket)).size).toBe(3);
    await eventually(() => expect(requests.every(({ socket }) => socket.destroyed)).toBe(true));
  });
});

describe('an instance that takes too long', () => {
  it.each<[string, (socket: Socket) => void]>([
    ['to begin its response', () => {}],
    [
      'with its head, of which it sends a letter now and then',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx-slow: ');
        const drip = setInterval(() => socket.write('x'), 10);
        socket.on('close', () => clearInterval(drip));
      },
    ],
    [
      'with its body, of which it sends a letter now and then',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        const drip = setInterval(() => socket.write('x'), 10);
        socket.on('close', () => clearInterval(drip));
      },
    ],
  ])('an instance that takes too long %s fails, and is hung up on', async (_how, serve) => {
    const sockets: Socket[] = [];
    const port = await startTcpServer((socket) => {
      sockets.push(socket.resume());
      serve(socket);
    });
    const finding = await unstalled(() => probeOf({ timeout: 60 })({ port }));
    expect(finding).toMatchObject({ passed: false, reason: 'it did not respond within 60 ms' });
    expect(finding.cause).toBeInstanceOf(TimeoutError);
    await eventually(() => expect(sockets.every(({ destroyed }) => destroyed)).toBe(true));
    expect(sockets.length).toBeGreaterThan(0);
  });

  it('an instance that takes too long to accept the connection fails, and the connection attempt is cancelled', async () => {
    const started: { unref: Mock; destroy: Mock }[] = [];
    const connect = () => {
      const connecting = { unref: vi.fn(), destroy: vi.fn() };
      started.push(connecting);
      return connecting;
    };
    const probe = probeOf({ timeout: 60, connect: connect as never });
    expect(await unstalled(() => probe({ port: 8001 }))).toMatchObject({
      passed: false,
      reason: 'it did not respond within 60 ms',
    });
    for (const connecting of started) {
      expect(connecting.unref).toHaveBeenCalledTimes(1);
      expect(connecting.destroy).toHaveBeenCalledTimes(1);
    }
  });

  it('an instance whose body never ends passes the check, and little of the body is read', async () => {
    let sent = 0;
    const { port, requests } = await startServer((_request, response) => {
      const more = () => {
        while (!response.destroyed && response.write('x'.repeat(16_384))) sent += 16_384;
      };
      response.on('drain', more);
      more();
    });
    expect(await probeOf()({ port })).toMatchObject({ passed: true });
    await eventually(() => expect(requests[0]!.socket.destroyed).toBe(true));
    expect(sent).toBeLessThan(20_000_000);
  });
});

describe('a health check URL that leads elsewhere', () => {
  it.each([
    (port: number) => `http://127.0.0.1:${port}/`,
    (port: number) => `//127.0.0.1:${port}/`,
    (port: number) => `/\\127.0.0.1:${port}/`,
    (port: number) => `http://user:secret@127.0.0.1:${port}/`,
    (port: number) => `https://127.0.0.1:${port}/`,
  ])(
    'a health check URL that leads elsewhere is not requested, though a discovery let it through (%#)',
    async (urlTo) => {
      const [own, other] = [await startServer(respondWith(200)), await startServer(respondWith(200))];
      const probe = createHttpProbe({ path: '/health', isExpected: () => true, timeout: 2_000, connect: {} });
      const hostile = {
        ...instance('u1', { host: '127.0.0.1', port: own.port }),
        healthCheckUrl: urlTo(other.port),
      };
      const finding = await probe(hostile, new AbortController().signal);
      expect(finding).toEqual({ passed: false, reason: 'its healthCheckUrl leads elsewhere' });
      expect([own.requests, other.requests]).toEqual([[], []]);
    },
  );

  it('a health check URL that leads elsewhere in its path alone is requested from the instance', async () => {
    const [own, other] = [await startServer(respondWith(200)), await startServer(respondWith(200))];
    const healthCheckUrl = `/..//127.0.0.1:${other.port}/`;
    expect(await probeOf()({ port: own.port, healthCheckUrl })).toMatchObject({ passed: true });
    expect([own.requests.length, other.requests.length]).toEqual([1, 0]);
  });
});

describe('a check that is cancelled', () => {
  it('a check that is cancelled rejects with the reason at once, and hangs up', async () => {
    const { port, requests } = await startServer(() => {});
    const controller = new AbortController();
    const check = follow(probeOf()({ port }, controller.signal));
    await eventually(() => expect(requests).toHaveLength(1));
    const reason = new Error('not any more');
    controller.abort(reason);
    await eventually(() => expect(check.outcome).toEqual({ ok: false, error: reason }));
    await eventually(() => expect(requests[0]!.socket.destroyed).toBe(true));
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a check that is cancelled closes its connection also while that is being made', async () => {
    const connecting = { unref: () => {}, destroy: vi.fn() };
    const controller = new AbortController();
    const check = probeOf({ connect: (() => connecting) as never })({ port: 8001 }, controller.signal);
    controller.abort(new Error('not any more'));
    expect(await rejectionOf(check)).toBe(controller.signal.reason);
    expect(connecting.destroy).toHaveBeenCalledTimes(1);
  });
});

it('a check leaves no listener on its signal, however many there were', async () => {
  const { port } = await startServer(respondWith(200));
  const { signal } = new AbortController();
  const leaks = collectWarnings('MaxListenersExceededWarning');
  const probe = probeOf();
  for (let check = 0; check < 20; check++) await probe({ port }, signal);
  await leaks.stop();
  expect([listenersOn(signal), leaks.warnings]).toEqual([0, []]);
});

it('a check whose expected status throws tells nothing of the instance', async () => {
  const { port } = await startServer(respondWith(200));
  const broken = new Error('broken');
  expect(await rejectionOf(probeOf({ isExpected: () => fling(broken) })({ port }))).toBe(broken);
});
