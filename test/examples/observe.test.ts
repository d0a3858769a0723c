import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';

it('the example of observe logs that a service breaks down and is mended, and ends by itself', {
  timeout: 60_000,
}, async () => {
  const path = fileURLToPath(new URL('../../examples/observe.ts', import.meta.url));
  const child = spawn(process.execPath, [path], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const registered =
    /^holdfast info: instance registered component=service-registrar .*service=user-service/m;
  expect(stdout).toMatch(registered);
  expect(stdout).toMatch(/^CircuitBreaker 'user-service' \{/m);
  expect(stdout).toMatch(/^holdfast info: circuit closed component=circuit-breaker .*service=user-service/m);
  expect(stderr).toMatch(/^holdfast error: circuit opened .*failures=3 .*code=ERR_SERVICE_RESPONSE/m);
  expect(stderr.match(/circuit opened/g)).toHaveLength(1);
});
