import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';

it('a hedge policy holds the process open while a call waits for its hedge, and no longer', () => {
  const child = run(`
    const { Hedge } = await import(${urlOf('hedge')});
    await Promise.all(Array.from({ length: 10 }, () => new Hedge({ delay: 60_000 }).execute(() => 'fine')));
    const hedge = new Hedge({ delay: 30 });
    await hedge.execute(() => 'fine');
    console.log(await hedge.execute(({ attempt }) => (attempt === 2 ? 'hedged' : new Promise(() => {}))));
  `);
  expect(child).toMatchObject({ status: 0, stdout: 'hedged\n' });
});

it('a Timeout that has served calls does not hold the process open', () => {
  const child = run(`
    const { Timeout } = await import(${urlOf('timeout')});
    const timeout = new Timeout(60_000);
    await Promise.all(Array.from({ length: 10 }, () => timeout.execute(() => 'fine')));
    console.log('served');
  `);
  expect(child).toMatchObject({ status: 0, stdout: 'served\n' });
});

it('a call under way holds the process open until its time is over', () => {
  const child = run(`
    const { Timeout } = await import(${urlOf('timeout')});
    const timeout = new Timeout(50);
    await timeout.execute(() => 'fine');
    await timeout.execute(() => new Promise(() => {})).catch((error) => console.log(error.code));
  `);
  expect(child).toMatchObject({ status: 0, stdout: 'ERR_TIMEOUT\n' });
});

/** Runs a script in a process of its own, and ends that process if it is held open. */
function run(script: string) {
  return spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
    timeout: 4_000,
  });
}

function urlOf(policy: string): string {
  return JSON.stringify(new URL(`../../src/policies/${policy}.ts`, import.meta.url).href);
}
