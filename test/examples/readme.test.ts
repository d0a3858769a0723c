import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { describe, expect, it, type TestContext } from 'vitest';
import { runsOf } from '../../scripts/doc-programs.ts';

/** Processes start slowly on a machine that is busy. */
const TIMEOUT = 60_000;

/** Below those that a system gives away by itself, from which no other test takes any. */
const PORT = 21_000 + (process.pid % 900) * 10;

/** Node 24 runs TypeScript from its standard input; what is built of the package need not be there. */
async function run(code: string, onTestFinished: TestContext['onTestFinished']) {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  child.stdin.end(
    code.replaceAll(/from 'holdfast(\/\w+)?'/g, (_, entry = '') => `from './src${entry}/index.ts'`),
  );
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { lines: stdout.split('\n').filter((line) => line !== ''), stderr };
}

/** `npm run check:package` runs the others too, with the package as npm installs it. */
const HERE = runsOf('README.md', PORT).filter(
  ({ code }, index) => index === 0 || code.includes('gracefulShutdown('),
);

describe.concurrent('README.md', { timeout: TIMEOUT }, () => {
  it.for(HERE)(
    '$name runs as it stands and prints what it says',
    async ({ code, prints }, { onTestFinished }) => {
      const serves = code.includes('gracefulShutdown(');
      const asked = `console.log((await fetch('http://localhost:${/port: (\d+)/.exec(code)?.[1]}/users/u1')).status);`;
      const { lines, stderr } = await run(
        serves ? `${code}\n${asked}\nprocess.exit();` : code,
        onTestFinished,
      );
      expect(stderr).toBe('');
      expect(lines).toEqual(serves ? ['200'] : prints);
    },
  );
});
