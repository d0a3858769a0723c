import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { type ServiceInstance, toInstance } from '../../src/discovery/service-instance.ts';
import { SnapshotFile } from '../../src/redis/snapshot-file.ts';
import { fakeTime, pass } from '../policies/helpers.ts';

let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-snapshot-'));
  path = join(directory, 'snapshot.json');
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
});

function instance(serviceName: string, instanceId: string, rest: Partial<ServiceInstance> = {}) {
  return toInstance({ serviceName, instanceId, host: '10.0.0.1', port: 8080, ...rest });
}

/** A process's view of the file, and what it was told to be wrong with it. */
function open(at = path) {
  const errors: unknown[] = [];
  return { file: new SnapshotFile(at, (error) => void errors.push(error)), errors };
}

async function content(): Promise<Record<string, { instanceId: string }[]>> {
  return JSON.parse(await readFile(path, 'utf8'));
}

test('a snapshot file restores the instances in a later process', async () => {
  const users = [
    instance('users', 'one', { zone: 'a', weight: 3, metadata: { version: '2' }, status: 'unhealthy' }),
    instance('users', 'two', { protocol: 'https', healthCheckUrl: '/health' }),
  ];
  const { file } = open();
  file.remember('users', users);
  file.remember('constructor', [instance('constructor', 'one')]);
  await file.flush();
  const later = open();
  expect(await later.file.restore('users')).toEqual(users);
  expect(await later.file.restore('constructor')).toEqual([expect.objectContaining({ instanceId: 'one' })]);
  expect(later.errors).toEqual([]);
});

test('a snapshot file restores nothing for a service that was never known', async () => {
  const { file, errors } = open();
  expect(await file.restore('users')).toBeUndefined();
  file.remember('users', [instance('users', 'one')]);
  await file.flush();
  for (const name of ['orders', 'toString', '__proto__', 'constructor'])
    expect(await file.restore(name)).toBeUndefined();
  expect(errors).toEqual([]);
});

test('a snapshot file is readable for its owner only, and nothing else is left beside it', async () => {
  const { file } = open();
  file.remember('users', [instance('users', 'one')]);
  await file.flush();
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readdir(directory)).toEqual(['snapshot.json']);
});

test('a snapshot file gathers changes before they are written, the last of each service', async () => {
  fakeTime();
  const { file } = open();
  file.remember('users', [instance('users', 'one')]);
  await pass(4_999);
  file.remember('users', [instance('users', 'two')]);
  file.remember('orders', [instance('orders', 'one')]);
  await expect(stat(path)).rejects.toThrow('ENOENT');
  await pass(1);
  vi.useRealTimers();
  await vi.waitFor(async () =>
    expect(await content()).toMatchObject({
      users: [{ instanceId: 'two' }],
      orders: [{ instanceId: 'one' }],
    }),
  );
});

test('a snapshot file is not written without a change', async () => {
  const { file } = open();
  await file.flush();
  await expect(stat(path)).rejects.toThrow('ENOENT');
  file.remember('users', [instance('users', 'one')]);
  await file.flush();
  await rm(path);
  await file.flush();
  await expect(stat(path)).rejects.toThrow('ENOENT');
});

test('a snapshot file keeps the services that other processes wrote, and forgets empty ones', async () => {
  const earlier = open().file;
  for (const name of ['users', 'orders', 'stock']) earlier.remember(name, [instance(name, 'earlier')]);
  await earlier.flush();
  const { file } = open();
  file.remember('users', [instance('users', 'one')]);
  await file.flush();
  // Another process, meanwhile.
  earlier.remember('orders', [instance('orders', 'meanwhile')]);
  await earlier.flush();
  file.remember('stock', []);
  file.remember('from a request', []);
  await file.flush();
  expect(await content()).toMatchObject({
    users: [{ instanceId: 'one' }],
    orders: [{ instanceId: 'meanwhile' }],
  });
  expect(Object.keys(await content())).toEqual(['users', 'orders']);
});

describe('a snapshot file that cannot be trusted', () => {
  test.each([
    ['half-written', '{"users":[{"instanceId":"one","host":"10.0'],
    ['empty', ''],
    ['a list', '"users"'],
    ['null', 'null'],
  ])('a snapshot file that cannot be trusted is reported and replaced: %s', async (_, text) => {
    await writeFile(path, text);
    const { file, errors } = open();
    expect(await file.restore('users')).toBeUndefined();
    expect(errors).toHaveLength(1);
    file.remember('users', [instance('users', 'one')]);
    await file.flush();
    expect(await file.restore('users')).toMatchObject([{ instanceId: 'one' }]);
  });

  test.each([
    ['no list', { users: { instanceId: 'one' } }],
    ['null', { users: null }],
    ['a string', { users: 'one' }],
  ])(
    'a snapshot file that cannot be trusted may have a service with an invalid list: %s',
    async (_, json) => {
      await writeFile(path, JSON.stringify(json));
      expect(await open().file.restore('users')).toBeUndefined();
    },
  );

  test('a snapshot file that cannot be trusted may have invalid instances, which are left out and reported', async () => {
    const good = { instanceId: 'good', host: '10.0.0.1', port: 80 };
    const bad = [
      null,
      'text',
      7,
      [],
      { ...good, instanceId: undefined },
      { ...good, instanceId: 'a b' },
      { ...good, host: 'evil.example/path' },
      { ...good, port: 70_000 },
      { ...good, healthCheckUrl: 'http://elsewhere/' },
      { ...good, metadata: { key: 1 } },
    ];
    const other = { ...good, serviceName: 'other' };
    await writeFile(path, JSON.stringify({ users: [...bad, good, other] }));
    const { file, errors } = open();
    const recalled = await file.restore('users');
    expect(recalled).toMatchObject([
      { serviceName: 'users', instanceId: 'good' },
      { serviceName: 'users', instanceId: 'good' },
    ]);
    expect(errors).toHaveLength(bad.length);
    for (const error of errors) expect(error).toMatchObject({ code: 'ERR_INVALID_INSTANCE' });
  });
});

test('a snapshot file restores an instance with a status that only a newer version knows as unknown', async () => {
  const newer = { instanceId: 'one', host: '10.0.0.1', port: 80, status: 'draining' };
  await writeFile(path, JSON.stringify({ users: [newer] }));
  const { file, errors } = open();
  expect(await file.restore('users')).toMatchObject([{ instanceId: 'one', status: 'unknown' }]);
  expect(errors).toEqual([]);
});

test('a snapshot file whose directory does not exist is reported, and is written once it does', async () => {
  const at = join(directory, 'missing', 'snapshot.json');
  const { file, errors } = open(at);
  expect(await file.restore('users')).toBeUndefined();
  file.remember('users', [instance('users', 'one')]);
  await file.flush();
  expect(errors).toMatchObject([{ code: 'ENOENT' }]);
  await mkdir(join(directory, 'missing'));
  file.remember('orders', [instance('orders', 'one')]);
  await file.flush();
  expect(errors).toHaveLength(1);
  expect(await file.restore('users')).toHaveLength(1);
  expect(await file.restore('orders')).toHaveLength(1);
});

test('a snapshot file that cannot be replaced stays as it is, without a trace of the attempt', async () => {
  await mkdir(path);
  const { file, errors } = open();
  file.remember('users', [instance('users', 'one')]);
  await file.flush();
  expect(errors.length).toBeGreaterThan(0);
  expect(await readdir(directory)).toEqual(['snapshot.json']);
});

test('a snapshot file stays whole with two writers in one process, and many writes at once', async () => {
  const views = [open(), open()];
  for (let turn = 0; turn < 20; turn++) {
    await Promise.all(
      views.map(({ file }, index) => {
        file.remember(`service-${index}`, [instance(`service-${index}`, `turn-${turn}`)]);
        return file.flush();
      }),
    );
    const names = Object.keys(await content());
    expect(names.length).toBeGreaterThan(0);
  }
  expect(views.flatMap(({ errors }) => errors)).toEqual([]);
  expect(await readdir(directory)).toEqual(['snapshot.json']);
});

test('a snapshot file is never half-written for the processes that share it', {
  timeout: 20_000,
}, async () => {
  const writer = join(directory, 'writer.ts');
  const source = (name: string) => JSON.stringify(new URL(`../../src/${name}`, import.meta.url).href);
  await writeFile(
    writer,
    `import { SnapshotFile } from ${source('redis/snapshot-file.ts')};
     import { toInstance } from ${source('discovery/service-instance.ts')};
     const [path, name] = process.argv.slice(2);
     const file = new SnapshotFile(path, (error) => process.send(String(error)));
     for (let turn = 0; turn < 30; turn++) {
       const instances = Array.from({ length: 50 }, (_, index) =>
         toInstance({ serviceName: name, instanceId: \`id-\${index}\`, host: '10.0.0.1', port: 80 }));
       file.remember(name, instances);
       await file.flush();
     }
     process.disconnect();`,
  );
  const problems: unknown[] = [];
  const ended = ['users', 'orders'].map((name) => {
    const child = fork(writer, [path, name]);
    onTestFinished(() => void child.kill('SIGKILL'));
    child.on('message', (problem) => void problems.push(problem));
    return once(child, 'exit');
  });
  const all = Promise.all(ended);
  let running = true;
  void all.finally(() => {
    running = false;
  });
  while (running) {
    const text = await readFile(path, 'utf8').catch(() => '{}');
    for (const list of Object.values(JSON.parse(text))) expect(list).toHaveLength(50);
  }
  expect(await all).toEqual([
    [0, null],
    [0, null],
  ]);
  expect(problems).toEqual([]);
  expect((await readdir(directory)).sort()).toEqual(['snapshot.json', 'writer.ts']);
});
