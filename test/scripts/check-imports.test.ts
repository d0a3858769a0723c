import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { checkImports } from '../../scripts/check-imports.ts';

const dependencies = ['undici'];

describe('the import rule', () => {
  it.each([
    ['src/policies/retry.ts', "import { HoldfastError } from '../errors.ts';"],
    ['src/errors.ts', "import { shown } from './internal/shown.ts';"],
    ['src/policies/retry.ts', "import { RetryBudget } from './retry-budget.ts';"],
    ['src/policies/retry.ts', "import { Emitter } from '../internal/emitter.ts';"],
    [
      'src/balancing/strategies/random.ts',
      "import type { ServiceInstance } from '../../discovery/types.ts';",
    ],
    ['src/client/service-client.ts', "import { Pool } from 'undici';\nimport { once } from 'node:events';"],
    ['src/saga/orchestrator.ts', "import type { EventBus } from '../events/event-bus.ts';"],
    ['src/redis/discovery.ts', "import { Redis } from 'ioredis';\nimport '../discovery/types.ts';"],
    ['src/telemetry/prometheus.ts', "import { Counter } from 'prom-client';"],
    ['src/cli/services-command.ts', "import { RedisConnection } from '../redis/redis-connection.ts';"],
    ['src/index.ts', "export { Retry } from './policies/retry.ts';"],
  ])('the import rule lets %s say %s', (file, source) => {
    expect(checkImports(file, source, dependencies)).toEqual([]);
  });

  it.each([
    ['errors', 'internal', 'src/errors.ts', './internal/emitter.ts'],
    ['internal', 'policies', 'src/internal/emitter.ts', '../policies/retry.ts'],
    ['policies', 'client', 'src/policies/retry.ts', '../client/service-client.ts'],
    ['discovery', 'balancing', 'src/discovery/dns.ts', '../balancing/load-balancer.ts'],
    ['balancing', 'client', 'src/balancing/strategies/random.ts', '../../client/service-client.ts'],
    ['client', 'middleware', 'src/client/service-client.ts', '../middleware/express.ts'],
    ['client', 'redis', 'src/client/service-client.ts', '../redis/index.ts'],
    ['client', 'index', 'src/client/service-client.ts', '../index.ts'],
    ['events', 'saga', 'src/events/event-bus.ts', '../saga/saga.ts'],
    ['redis', 'cli', 'src/redis/discovery.ts', '../cli/run.ts'],
    ['cli', 'ioredis', 'src/cli/run.ts', 'ioredis'],
    ['index', 'gateway', 'src/index.ts', './gateway/index.ts'],
    ['client', 'test/support/server.ts', 'src/client/service-client.ts', '../../test/support/server.ts'],
    ['discovery', 'ioredis', 'src/discovery/dns.ts', 'ioredis'],
    ['redis', 'pg', 'src/redis/discovery.ts', 'pg'],
    ['policies', '@opentelemetry/api', 'src/policies/retry.ts', '@opentelemetry/api/experimental'],
    ['client', 'axios', 'src/client/service-client.ts', 'axios'],
  ])('the import rule rejects %s → %s', (room, target, file, specifier) => {
    expect(checkImports(file, `import '${specifier}';`, dependencies)).toEqual([
      expect.stringContaining(`${file}:1: '${specifier}': ${room} → ${target} is not allowed`),
    ]);
  });

  it.each([
    "import { ServiceClient } from '../client/service-client.ts';",
    "import type { ServiceClient } from '../client/service-client.ts';",
    "export * from '../client/service-client.ts';",
    "export type { ServiceClient } from '../client/service-client.ts';",
    "const { ServiceClient } = await import('../client/service-client.ts');",
    "type Client = import('../client/service-client.ts').ServiceClient;",
    "const { ServiceClient } = require('../client/service-client.ts');",
  ])('the import rule sees through %s', (statement) => {
    expect(checkImports('src/policies/retry.ts', `\n\n${statement}\n`, dependencies)).toEqual([
      "src/policies/retry.ts:3: '../client/service-client.ts': policies → client is not allowed; " +
        'policies may import only errors, internal',
    ]);
  });

  it('the import rule is not misled by comments and strings', () => {
    const source =
      "// import '../client/a.ts'\n/** {@link import('../client/a.ts')} */\nconst a = `import('pg')`;";
    expect(checkImports('src/policies/retry.ts', source, dependencies)).toEqual([]);
  });

  it('the import rule rejects a file that is in no room', () => {
    expect(checkImports('src/utils/misc.ts', '', dependencies)).toEqual([
      expect.stringContaining("src/utils/misc.ts: no room is named 'utils'"),
    ]);
  });

  it.each([
    ['passes', '', 0],
    ['fails', "import '../client/b.ts';", 1],
  ])('the command of the import rule %s for a tree that says "%s"', (_, source, status) => {
    const project = mkdtempSync(join(tmpdir(), 'holdfast-imports-'));
    onTestFinished(() => rmSync(project, { recursive: true }));
    mkdirSync(join(project, 'src/policies'), { recursive: true });
    writeFileSync(join(project, 'package.json'), '{ "dependencies": {} }');
    writeFileSync(join(project, 'src/policies/a.ts'), source);

    const run = spawnSync(process.execPath, [resolve('scripts/check-imports.ts')], {
      cwd: project,
      encoding: 'utf8',
    });

    expect(run.stdout).toContain('Checked the imports of 1 files');
    expect(run.stderr.includes('policies → client is not allowed')).toBe(status === 1);
    expect(run.status).toBe(status);
  });
});
