import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, onTestFinished, test } from 'vitest';

/** The first of four ports that no other test uses. */
const FIRST_PORT = 25_101;

function run(program: string, args: string[]): ChildProcess {
  const path = new URL(`../../${program}`, import.meta.url);
  const child = fork(path, args, { execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return child;
}

/** Waits until a stream of the process has had the pattern, and gives its first group. */
async function find(stream: NodeJS.ReadableStream, pattern: RegExp): Promise<string[]> {
  let all = '';
  return new Promise((resolve, reject) => {
    stream.on('data', (chunk) => {
      all += chunk;
      const found = pattern.exec(all);
      if (found !== null) resolve(found.slice(1));
    });
    stream.once('end', () => reject(new Error(`there is no ${pattern} in:\n${all}`)));
  });
}

test('the gateway of the examples takes requests as services.ts says, and ends with exit code 0', {
  timeout: 60_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-gateway-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const original = await readFile(new URL('../../examples/gateway/gateway.yaml', import.meta.url), 'utf8');
  const config = join(folder, 'gateway.yaml');
  const moved = original.replaceAll(/:900(\d)/g, (_, digit) => `:${FIRST_PORT - 1 + Number(digit)}`);
  await writeFile(config, moved.replace('port: 8080', 'drainDelay: 0'));

  const services = run('examples/gateway/services.ts', [String(FIRST_PORT)]);
  const [plain, scoped] = await find(
    services.stdout!,
    /orders -H "Authorization: (.*)"\n.*orders -H "Authorization: (.*)"/,
  );
  const gateway = run('src/cli/main.ts', ['gateway', '--config', config, '--port', '0']);
  const [url] = await find(gateway.stderr!, /listens at (\S+)\n/);
  const statusOf = async (path: string, method = 'GET', authorization = '') => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      // A gateway that ends waits a second for a connection that is idle.
      headers: { connection: 'close', ...(authorization && { authorization }) },
    });
    await response.text();
    return response.status;
  };

  expect(await statusOf('/prices/pear')).toBe(200);
  expect(await statusOf('/users/ada')).toBe(401);
  expect(await statusOf('/users/ada', 'GET', plain)).toBe(200);
  expect(await statusOf('/orders', 'POST', plain)).toBe(403);
  expect(await statusOf('/orders', 'POST', scoped)).toBe(200);
  const flood = await Promise.all(Array.from({ length: 100 }, () => statusOf('/prices/pear')));
  expect(flood).toContain(429);

  gateway.kill('SIGTERM');
  expect(await once(gateway, 'exit')).toEqual([0, null]);
});

test('the gateway of the examples is allowed as it stands', { timeout: 60_000 }, async () => {
  const child = run('src/cli/main.ts', ['gateway', '--config', 'examples/gateway/gateway.yaml', '--check']);
  expect(await text(child.stdout!)).toContain('is allowed: 3 routes');
});
