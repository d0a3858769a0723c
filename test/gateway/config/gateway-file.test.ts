import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { GatewayConfigError } from '../../../src/errors.ts';
import { GatewayFile } from '../../../src/gateway/config/gateway-file.ts';
import type { GatewayConfig } from '../../../src/gateway/options.ts';

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-config-'));
  onTestFinished(() => rm(path, { recursive: true }));
  return path;
}

async function fileOf(text: string | Buffer): Promise<string> {
  const path = join(await folder(), 'gateway.yaml');
  await writeFile(path, text);
  return path;
}

const routesOf = (path: string) => `routes:\n  - { path: ${path}, service: shop, auth: false }\n`;

async function errorOf(text: string | Buffer, env = {}): Promise<GatewayConfigError> {
  const opened = GatewayFile.open(await fileOf(text), env);
  return opened.then(
    () => {
      throw new Error('it was allowed');
    },
    (error) => {
      expect(error).toBeInstanceOf(GatewayConfigError);
      return error;
    },
  );
}

/** Follows a file for a gateway that notes what it is told. */
function follow(file: GatewayFile) {
  const reloads: Partial<GatewayConfig>[] = [];
  const events: string[] = [];
  const gateway = { reload: async (config: Partial<GatewayConfig>) => void reloads.push(config) };
  file.on('reload', ({ ignored }) => events.push(`reload ${ignored}`));
  file.on('failure', ({ error }) => events.push(error.message));
  file.follow(gateway, { interval: 10 });
  onTestFinished(() => file.close());
  const paths = () => reloads.map(({ routes }) => routes![0]!.path);
  return { reloads, events, paths };
}

describe('the file of a gateway', () => {
  it('the file of a gateway is YAML or JSON', async () => {
    const yaml = await GatewayFile.open(await fileOf(`# a comment\n${routesOf('/a')}`));
    const json = await GatewayFile.open(
      await fileOf(JSON.stringify({ routes: [{ path: '/a', service: 'shop', auth: false }] }, null, 2)),
    );
    expect(yaml.options).toEqual(json.options);
    expect(yaml.config.routes[0]).toEqual({ path: '/a', service: 'shop', auth: false });
  });

  it('all that is wrong with a file is told, with its lines in their order', async () => {
    const error = await errorOf(
      [
        'routes:',
        '  - path: /a',
        '    service: shop',
        '    auth: false',
        '    timeout: soon',
        '  - path: /b',
        '    auth: false',
        'server:',
        '  port: 70000',
        'corse: true',
      ].join('\n'),
    );
    expect(error.problems.map(({ line, path }) => [line, path])).toEqual([
      [5, 'routes[0].timeout'],
      [6, 'routes[1]'],
      [9, 'server.port'],
      [10, 'corse'],
    ]);
    expect(error).toMatchObject({ line: 5, path: 'routes[0].timeout' });
    expect(error.message).toContain(`${error.file}:5: routes[0].timeout must be a number`);
  });

  it('the line is told of what an alias stands for, and of what is missing', async () => {
    const error = await errorOf(
      'routes:\n  - &one { path: /a, service: 1, auth: false }\n  - *one\ncors:\n  credentials: true\n',
    );
    expect(error.problems.map(({ line, path }) => [line, path])).toEqual([
      [2, 'routes[0].service'],
      [2, 'routes[1].service'],
      [4, 'cors'],
    ]);
  });

  it.each<[string, string | Buffer, RegExp]>([
    ['that cannot be parsed', 'routes: [', /gateway\.yaml:1: /],
    [
      'with a name twice',
      `${routesOf('/a')}cors: false\ncors: false\n`,
      /gateway\.yaml:4: Map keys must be unique/,
    ],
    ['with an unknown tag', `${routesOf('/a')}helmet: !!js/function 'x'\n`, /:3: Unresolved tag/],
    ['with two documents', `${routesOf('/a')}---\n${routesOf('/b')}`, /multiple documents/],
    ['that is empty', '', /must be an object with .* got null/],
    ['that is a list', '- a', /must be an object with .* got a list/],
    ['that is no UTF-8', Buffer.from([0x61, 0xff]), /not valid/],
    ['of more than 1 MiB', `# ${'x'.repeat(2 ** 20)}\n`, /larger than 1 MiB/],
    ['of many brackets', '['.repeat(10_000), /not allowed/],
  ])('a file %s is rejected', async (_kind, text, message) => {
    expect((await errorOf(text)).message).toMatch(message);
  });

  it('a file whose aliases would fill the memory is rejected', async () => {
    const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 10; level++) {
      lines.push(
        `a${level}: &a${level} [${Array(10)
          .fill(`*a${level - 1}`)
          .join(', ')}]`,
      );
    }
    expect((await errorOf(lines.join('\n'))).message).toMatch(/[Ee]xcessive alias count/);
  });

  it('a file that is not there is told by its name', async () => {
    await expect(GatewayFile.open('/none/gateway.yaml')).rejects.toMatchObject({
      code: 'ERR_GATEWAY_CONFIG',
      file: '/none/gateway.yaml',
      message: expect.stringMatching(/no such file/),
    });
  });
});

describe('environment variables in the file of a gateway', () => {
  const withKey = (value: string) =>
    `routes:\n  - path: /a\n    service: shop\n    auth: false\n    requestHeaders: { set: { x-key: '${value}' } }\n`;

  it('a variable stands in the fields that are marked, as a whole or a part, and as a number', async () => {
    const text = `${withKey(`Bearer \${env:KEY}`)}server: { port: '\${env:PORT}' }\ndiscovery: { redis: { url: 'redis://:\${env:KEY}@\${env:HOST}' } }\n`;
    const { options } = await GatewayFile.open(await fileOf(text), {
      KEY: 'abc',
      PORT: '8080',
      HOST: 'redis',
    });
    expect(options.routes[0]!.requestHeaders!.set).toEqual({ 'x-key': 'Bearer abc' });
    expect(options.server!.port).toBe(8080);
    expect(options.discovery!.redis!.url).toBe('redis://:abc@redis');
  });

  it('a variable with a mark in its value is not expanded again', async () => {
    const { options } = await GatewayFile.open(await fileOf(withKey(`\${env:A}`)), {
      A: `\${env:B}`,
      B: 'secret',
    });
    expect(options.routes[0]!.requestHeaders!.set).toEqual({ 'x-key': `\${env:B}` });
  });

  it.each([
    ['is not set', `\${env:NONE}`, /:5: .* needs the environment variable NONE, which is not set/],
    ['is empty', `\${env:EMPTY}`, /variable EMPTY, which is not set/],
    ['has a name of all objects', `\${env:constructor}`, /variable constructor, which is not set/],
    ['has no name', `\${env:}`, /malformed/],
    ['has no end', `\${env:KEY`, /malformed/],
  ])('a variable that %s is an error', async (_kind, value, message) => {
    expect((await errorOf(withKey(value), { EMPTY: '' })).message).toMatch(message);
  });

  it('a variable in a field that is not marked is an error', async () => {
    const { message } = await errorOf(`routes: [{ path: "/\${env:A}", service: shop, auth: false }]`, {
      A: 'a',
    });
    expect(message).toMatch(/routes\[0\]\.path takes no \$\{env:NAME\}/);
  });

  it('no message tells the value of a variable', async () => {
    const { message } = await errorOf(`${withKey(`\${env:KEY}`)}server: { port: '\${env:KEY}' }\n`, {
      KEY: 's3cret\n',
    });
    expect(message).toMatch(/server\.port must be/);
    expect(message).not.toContain('s3cret');
  });
});

describe('a file of a gateway that is followed', () => {
  it('a file that is edited in place is taken over, and what it leaves out is taken away', async () => {
    const path = await fileOf(`${routesOf('/a')}helmet: true\n`);
    const file = await GatewayFile.open(path);
    const { paths, reloads, events } = follow(file);
    await writeFile(path, routesOf('/b'));
    await vi.waitFor(() => expect(paths()).toEqual(['/b']));
    expect(Object.keys(reloads[0]!)).toContain('helmet');
    expect(reloads[0]!.helmet).toBeUndefined();
    expect(events).toEqual(['reload ']);
  });

  it('a file that was replaced by a rename is taken over', async () => {
    const path = await fileOf(routesOf('/a'));
    const { paths } = follow(await GatewayFile.open(path));
    for (const next of ['/b', '/c']) {
      await writeFile(`${path}.tmp`, routesOf(next));
      await rename(`${path}.tmp`, path);
      await vi.waitFor(() => expect(paths().at(-1)).toBe(next));
    }
    expect(paths()).toEqual(['/b', '/c']);
  });

  it('a ConfigMap of Kubernetes is taken over when its symbolic link is swapped', async () => {
    const mount = await folder();
    const publish = async (version: string, text: string) => {
      await mkdir(join(mount, version));
      await writeFile(join(mount, version, 'gateway.yaml'), text);
      await symlink(version, join(mount, '..data_tmp'));
      await rename(join(mount, '..data_tmp'), join(mount, '..data'));
    };
    await publish('..2026_01', routesOf('/a'));
    await symlink(join('..data', 'gateway.yaml'), join(mount, 'gateway.yaml'));
    const { paths, events } = follow(await GatewayFile.open(join(mount, 'gateway.yaml')));
    await publish('..2026_02', routesOf('/b'));
    await rm(join(mount, '..2026_01'), { recursive: true });
    await vi.waitFor(() => expect(paths()).toEqual(['/b']));
    expect(events).toEqual(['reload ']);
  });

  it('a file that is not allowed, or is gone, changes nothing, and is told once', async () => {
    const path = await fileOf(routesOf('/a'));
    const { reloads, events, paths } = follow(await GatewayFile.open(path));
    await writeFile(path, 'routes: 1');
    await vi.waitFor(() => expect(events).toEqual([expect.stringMatching(/routes must be a list/)]));
    await rm(path);
    await vi.waitFor(() => expect(events.at(-1)).toMatch(/no such file/));
    await writeFile(path, routesOf('/b'));
    await vi.waitFor(() => expect(paths()).toEqual(['/b']));
    expect(reloads).toHaveLength(1);
    expect(events).toHaveLength(3);
  });

  it('a file that is written in two parts is taken over as a whole', async () => {
    const path = await fileOf(routesOf('/a'));
    const file = await GatewayFile.open(path);
    const reads: string[] = [];
    const gateway = {
      reload: async (config: Partial<GatewayConfig>) => void reads.push(String(config.routes!.length)),
    };
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    file.follow(gateway, { interval: 1_000 });
    onTestFinished(() => file.close());
    // One reading sees a part, which would be allowed by itself.
    await writeFile(path, routesOf('/b'));
    await passInterval();
    await writeFile(path, `${routesOf('/b')}  - { path: /c, service: shop, auth: false }\n`);
    await passInterval();
    expect(reads).toEqual([]);
    await passInterval();
    expect(reads).toEqual(['2']);
  });

  it('a change of what is read at the start alone is told, and the rest is taken over', async () => {
    const path = await fileOf(`${routesOf('/a')}server: { port: 1 }\n`);
    const { paths, events } = follow(await GatewayFile.open(path));
    await writeFile(path, `${routesOf('/b')}server: { port: 2 }\n`);
    await vi.waitFor(() => expect(events).toEqual(['reload server']));
    expect(paths()).toEqual(['/b']);
  });

  it('a file is followed with options that are allowed alone', async () => {
    const file = await GatewayFile.open(await fileOf(routesOf('/a')));
    const gateway = { reload: async () => {} };
    expect(() => file.follow(gateway, { interval: 0 })).toThrow(/option 'interval' must be a number/);
    expect(() => file.follow(gateway, { every: 5 } as never)).toThrow(/has no option 'every'/);
  });

  it('a file is not read any more once it is closed', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const file = await GatewayFile.open(await fileOf(routesOf('/a')));
    file.follow({ reload: async () => {} });
    file.close();
    file.close();
    expect(vi.getTimerCount()).toBe(0);
  });
});

/** Lets the next reading begin, and waits until the one after it is scheduled. */
async function passInterval(): Promise<void> {
  vi.advanceTimersByTime(1_000);
  while (vi.getTimerCount() === 0) await new Promise(setImmediate);
}
