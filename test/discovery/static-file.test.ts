import { mkdir, mkdtemp, rename, rm, symlink, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { JsonFile } from '../../src/discovery/static-file.ts';
import { DiscoveryUnavailableError } from '../../src/errors.ts';
import { FollowedFile } from '../../src/internal/followed-file.ts';
import { fling, flush, rejectionOf } from '../policies/helpers.ts';

const interval = 5;

/** Files change in real time: waits until it is so, for as long as a busy machine may need. */
const eventually = <T>(assertion: () => T | Promise<T>) =>
  vi.waitFor(assertion, { interval: 5, timeout: 4_000 });

async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-'));
  onTestFinished(() => rm(path, { recursive: true }));
  return path;
}

async function fileWith(text: string | Uint8Array): Promise<string> {
  const path = join(await directory(), 'services.json');
  await writeFile(path, text);
  return path;
}

/** Puts another file in its place, so that it is never seen half-written. */
async function replace(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

/** Records the contents that were taken from the file, and the messages of its failures. */
function follow(path: string | URL, take: (content: unknown) => void = () => {}) {
  const taken: unknown[] = [];
  const failures: string[] = [];
  const file = new JsonFile(path, (content) => {
    take(content);
    taken.push(content);
  });
  onTestFinished(() => file.close());
  file.follow(interval, (error) => failures.push(error.message));
  return { file, taken, failures };
}

async function toTake(followed: ReturnType<typeof follow>, ...contents: unknown[]): Promise<void> {
  await eventually(() => expect(followed.taken).toEqual(contents));
}

/** Waits until the file has been looked at some times more. */
async function looks(): Promise<void> {
  const waits = vi.spyOn(globalThis, 'setTimeout');
  await eventually(() => {
    expect(waits.mock.calls.filter(([, wait]) => wait === interval).length).toBeGreaterThan(4);
  });
  waits.mockRestore();
}

describe('a change of a static file', () => {
  it('a change of a static file is taken over when it is edited in place, also if size and time stay the same', async () => {
    const path = await fileWith('[1]');
    const followed = follow(path);
    await toTake(followed, [1]);
    await writeFile(path, '[2]', { flag: 'r+' });
    await toTake(followed, [1], [2]);
  });

  it('a change of a static file is taken over when another file replaces it', async () => {
    const path = await fileWith('[1]');
    const followed = follow(path);
    await toTake(followed, [1]);
    await replace(path, '[2]');
    await toTake(followed, [1], [2]);
  });

  it('a change of a static file is taken over when the directory behind a symbolic link is swapped, as Kubernetes does it', async () => {
    const mount = await directory();
    for (const version of [1, 2]) {
      await mkdir(join(mount, `..v${version}`));
      await writeFile(join(mount, `..v${version}`, 'services.json'), `[${version}]`);
      await symlink(`..v${version}`, join(mount, `..data_${version}`));
    }
    const path = join(mount, 'services.json');
    await symlink(join('..data', 'services.json'), path);
    await rename(join(mount, '..data_1'), join(mount, '..data'));
    const followed = follow(path);
    await toTake(followed, [1]);
    await rename(join(mount, '..data_2'), join(mount, '..data'));
    await rm(join(mount, '..v1'), { recursive: true });
    await toTake(followed, [1], [2]);
    expect(followed.failures).toEqual([]);
  });

  it('a change of a static file is taken over when it comes back after it was deleted', async () => {
    const path = await fileWith('[1]');
    const followed = follow(path);
    await toTake(followed, [1]);
    await unlink(path);
    await eventually(() => expect(followed.failures).toHaveLength(1));
    await writeFile(path, '[2]');
    await toTake(followed, [1], [2]);
  });

  it('a change of a static file is taken over once, and the same text is not taken again', async () => {
    const path = await fileWith('[1]');
    const followed = follow(path);
    await toTake(followed, [1]);
    await looks();
    expect(followed.taken).toEqual([[1]]);
  });

  it('a change of a static file is taken over only if it is whole, and a half-written file is ignored', async () => {
    const path = await fileWith('{ "a": 1 }');
    const followed = follow(path);
    await toTake(followed, { a: 1 });
    for (const size of [9, 5, 0]) {
      await truncate(path, size);
      await looks();
    }
    expect(followed.taken).toHaveLength(1);
    await writeFile(path, '{ "a": 1 }');
    await looks();
    expect(followed.taken).toHaveLength(1);
    await writeFile(path, '{ "a": 2 }');
    await toTake(followed, { a: 1 }, { a: 2 });
  });

  it('a change of a static file is ignored once it is closed, also if it is just being read', async () => {
    const path = await fileWith('[1]');
    const taken: unknown[] = [];
    const file = new JsonFile(path, (content) => taken.push(content));
    await file.read();
    await replace(path, '[2]');
    const reading = file.read();
    file.close();
    file.close();
    await reading;
    expect(taken).toEqual([[1]]);
  });
});

describe('a static file that is closed', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  });
  it('a static file that is closed is not read again', async () => {
    const { file } = follow(await fileWith('[1]'));
    file.close();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a static file that is closed while it is being read is not read again, and reports no failure', async () => {
    const path = join(await directory(), 'none');
    const read = vi.spyOn(FollowedFile.prototype, 'read');
    const { file, failures } = follow(path);
    vi.advanceTimersByTime(interval);
    file.close();
    await rejectionOf(read.mock.results[0]!.value);
    await flush();
    expect(failures).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a failure of a static file', () => {
  it('a failure of a static file is reported once while it lasts, and again when it comes back', async () => {
    const path = await fileWith('[1]');
    const { failures } = follow(path);
    for (const times of [1, 2]) {
      await replace(path, 'nonsense');
      await eventually(() => expect(failures).toHaveLength(times));
      await looks();
      expect(failures).toHaveLength(times);
      await replace(path, '[1]');
      await looks();
    }
  });

  it('a failure of a static file is reported for a file that is gone, and then for one that is malformed', async () => {
    const path = await fileWith('[1]');
    const { failures } = follow(path);
    await unlink(path);
    await eventually(() => expect(failures).toEqual([expect.stringContaining('ENOENT')]));
    await replace(path, '[1,');
    await eventually(() => expect(failures).toHaveLength(2));
    expect(failures[1]).toContain('JSON');
  });

  it('a failure of a static file is reported for content that is rejected, which is tried at each reading', async () => {
    const path = await fileWith('[1]');
    let rejected = true;
    const followed = follow(path, () => rejected && fling(new Error('not now')));
    await eventually(() => {
      expect(followed.failures).toEqual([`the instances in '${path}' cannot be used: not now`]);
    });
    rejected = false;
    await toTake(followed, [1]);
  });
});

describe('reading a static file', () => {
  const read = async (path: string | URL) => {
    let taken: unknown;
    await new JsonFile(path, (content) => {
      taken = content;
    }).read();
    return taken;
  };

  it.each<[string, string | Uint8Array, string]>([
    ['not JSON', '{ a: 1 }', 'JSON'],
    ['empty', '', 'JSON'],
    ['not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), 'utf-8'],
    ['larger than 1 MiB', `"${'x'.repeat(2 ** 20 - 1)}"`, 'larger than 1 MiB'],
  ])('reading a static file fails if it is %s, naming it', async (_what, text, reason) => {
    const path = await fileWith(text);
    const error = await rejectionOf(read(path));
    expect(error).toBeInstanceOf(DiscoveryUnavailableError);
    expect(error).toMatchObject({ message: expect.stringContaining(`'${path}'`) });
    expect(error).toMatchObject({ message: expect.stringContaining(reason) });
    expect((error as Error).cause).toBeInstanceOf(Error);
  });

  it('reading a static file fails if it is a directory, or not there', async () => {
    const path = await directory();
    expect(await rejectionOf(read(path))).toMatchObject({
      cause: { message: expect.stringMatching(/is not a file$/) },
    });
    expect(await rejectionOf(read(join(path, 'none')))).toMatchObject({ cause: { code: 'ENOENT' } });
  });

  it('reading a static file fails at once, whatever the size of the file', async () => {
    const path = await fileWith('');
    await truncate(path, 2 ** 34);
    expect(await rejectionOf(read(path))).toMatchObject({ message: expect.stringContaining('1 MiB') });
  });

  it('reading a static file accepts 1 MiB', async () => {
    const text = 'x'.repeat(2 ** 20 - 2);
    expect(await read(await fileWith(`"${text}"`))).toBe(text);
  });

  it('reading a static file ignores the byte order mark of some editors', async () => {
    expect(await read(await fileWith('\ufeff{"a":"é"}'))).toEqual({ a: 'é' });
  });

  it('reading a static file accepts a URL, and a path relative to the working directory', async () => {
    const path = await fileWith('[1]');
    expect(await read(pathToFileURL(path))).toEqual([1]);
    expect(await read(relative(process.cwd(), path))).toEqual([1]);
    expect(new JsonFile(relative(process.cwd(), path), () => {}).path).toBe(path);
  });
});

it('the wait between two readings of a static file does not hold the process open', async () => {
  const waits = vi.spyOn(globalThis, 'setTimeout');
  follow(await fileWith('[1]'));
  expect(waits.mock.results.map(({ value }) => value.hasRef())).toEqual([false]);
});
