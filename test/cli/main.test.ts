import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { startRedis } from '../support/redis.ts';
import { registry } from './helpers.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const SOON = { timeout: 8_000, interval: 20 };

interface Child {
  readonly process: ChildProcess;
  readonly out: string;
  readonly err: string;
  /** Its exit code, once it has ended and all that it wrote was read. */
  readonly ended: Promise<number | null>;
}

function spawned(command: string, args: string[]): Child {
  const process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const written = { out: '', err: '' };
  process.stdout.on('data', (chunk) => {
    written.out += chunk;
  });
  process.stderr.on('data', (chunk) => {
    written.err += chunk;
  });
  const ended = once(process, 'close').then(([code]) => code);
  onTestFinished(async () => {
    process.kill('SIGKILL');
    await ended;
  });
  return {
    process,
    ended,
    get out() {
      return written.out;
    },
    get err() {
      return written.err;
    },
  };
}

const holdfast = (...args: string[]) => spawned(process.execPath, [MAIN, ...args]);

describe('the program holdfast', { timeout: 20_000 }, () => {
  it('the program holdfast lists services and exits by itself', async () => {
    const { register, where } = registry();
    await register('a');
    const child = holdfast('services', ...where);
    expect(await child.ended).toBe(0);
    expect(child.out).toMatch(/^user-service: 1 instance,/);
    expect(child.err).toBe('');
  });

  it('the program holdfast exits with the code of what went wrong', async () => {
    const child = holdfast('services', '--redis', 'redis://127.0.0.1:1', '--timeout', '100');
    expect(await child.ended).toBe(1);
    expect(child.err.split('\n')).toEqual([
      expect.stringMatching(/^holdfast: Redis at 127\.0\.0\.1:1: /),
      '',
    ]);
  });

  it('the program holdfast watches until Ctrl-C, and then exits with 0', async () => {
    const { register, where } = registry();
    await register('a');
    const child = holdfast('services', '--watch', ...where);
    await vi.waitFor(() => expect(child.out).toMatch(/^user-service: 1 instance,/), SOON);
    // Long after the first look is done: nothing but the watching itself keeps the process alive.
    await register('b');
    await vi.waitFor(() => expect(child.out).toContain('b joined'), SOON);
    child.process.kill('SIGINT');
    expect(await child.ended).toBe(0);
    expect(child.err).toBe('');
  });

  it('the program holdfast does not wait for a Redis that says nothing when it is interrupted', async () => {
    const redis = await startRedis();
    const { register, where } = registry(redis.url);
    await register('a');
    const child = holdfast('services', '--watch', ...where, '--timeout', '60000');
    await vi.waitFor(() => expect(child.out).toMatch(/^user-service: 1 instance,/), SOON);
    const admin = new Redis(redis.url);
    onTestFinished(() => admin.disconnect());
    await admin.call('CLIENT', 'PAUSE', '60000', 'WRITE');
    // It looks again at once.
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await vi.waitFor(async () => expect(await admin.client('LIST')).toMatch(/flags=b .*cmd=evalsha/), SOON);
    child.process.kill('SIGINT');
    expect(await child.ended).toBe(0);
  });

  it('the program holdfast ends quietly when its reader goes away', async () => {
    const { register, where } = registry();
    await register('a');
    const command = '{ "$@"; echo "exit code $?" >&2; } | head -n 1';
    const child = spawned('sh', [
      '-c',
      command,
      'sh',
      process.execPath,
      MAIN,
      'services',
      '--watch',
      ...where,
    ]);
    await vi.waitFor(() => expect(child.out).toMatch(/^user-service: 1 instance,/), SOON);
    await register('b');
    await child.ended;
    expect(child.err).toBe('exit code 0\n');
  });

  const redis = ['--redis', 'redis://127.0.0.1:1'];
  it.each([
    ['services', 'ioredis', ['services', ...redis]],
    ['events', 'ioredis', ['events', 'lag', ...redis]],
    ['sagas', 'ioredis', ['sagas', 'list', ...redis]],
    ['sagas', 'pg', ['sagas', 'list', '--postgres', 'postgres://127.0.0.1:1/a']],
    ['events reset-source', 'pg', ['events', 'reset-source', '--postgres', 'postgres://127.0.0.1:1/a']],
  ])('the program holdfast says what to install where %s needs %s', async (command, peer, args) => {
    const withoutPeer = `
      import { registerHooks } from 'node:module';
      registerHooks({
        resolve(specifier, context, next) {
          if (specifier !== '${peer}') return next(specifier, context);
          const error = new Error("Cannot find package '${peer}' imported from " + context.parentURL);
          throw Object.assign(error, { code: 'ERR_MODULE_NOT_FOUND' });
        },
      });
    `;
    const hooks = `data:text/javascript,${encodeURIComponent(withoutPeer)}`;
    const child = spawned(process.execPath, ['--import', hooks, MAIN, ...args]);
    expect(await child.ended).toBe(1);
    expect(child.err).toBe(
      `holdfast: ${command} needs the package ${peer}, which is not installed beside holdfast: npm install ${peer}\n`,
    );
    expect(child.out).toBe('');
    const help = spawned(process.execPath, ['--import', hooks, MAIN, '--help']);
    expect(await help.ended).toBe(0);
  });
});
