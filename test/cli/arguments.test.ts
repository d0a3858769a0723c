import { describe, expect, it } from 'vitest';
import { type Command, parseCommand } from '../../src/cli/arguments.ts';
import { CommandError } from '../../src/cli/command-error.ts';

function errorOf(args: string[], env: Record<string, string> = {}): CommandError {
  let command: Command;
  try {
    command = parseCommand(args, env);
  } catch (error) {
    if (error instanceof CommandError) return error;
    throw error;
  }
  throw new Error(`understood as ${JSON.stringify(command)}`);
}

describe('the command line', () => {
  it('the command line lists all services of the prefix holdfast unless told otherwise', () => {
    expect(parseCommand(['services', '--redis', 'redis://redis:6379/2'], {})).toEqual({
      command: 'services',
      names: [],
      redis: 'redis://redis:6379/2',
      keyPrefix: 'holdfast',
      watch: false,
      json: false,
      timeout: 5_000,
    });
  });

  it('the command line takes names of services, each once, and every option', () => {
    const line = 'services b a b --redis rediss://r --key-prefix p:1 --watch --json --timeout 250';
    expect(parseCommand(line.split(' '), {})).toEqual({
      command: 'services',
      names: ['b', 'a'],
      redis: 'rediss://r',
      keyPrefix: 'p:1',
      watch: true,
      json: true,
      timeout: 250,
    });
  });

  it('the command line finds Redis by REDIS_URL, unless --redis says something else', () => {
    const env = { REDIS_URL: 'redis://from-environment' };
    expect(parseCommand(['services'], env)).toMatchObject({ redis: 'redis://from-environment' });
    expect(parseCommand(['services', '--redis', 'redis://given'], env)).toMatchObject({
      redis: 'redis://given',
    });
  });

  it.each([
    [['--help'], 'help'],
    [['-h'], 'help'],
    [['services', '--help'], 'help'],
    [['--version'], 'version'],
    [['-v'], 'version'],
  ])('the command line takes %j for %s', (args, command) => {
    expect(parseCommand(args, {})).toEqual({ command });
  });

  const place = { redis: 'redis://r', keyPrefix: 'holdfast', timeout: 5_000, json: false };
  it.each([
    ['lag', { action: 'lag', group: undefined }],
    ['pending --group g', { action: 'pending', group: 'g' }],
    ['dead', { action: 'dead', group: undefined }],
    ['groups', { action: 'groups' }],
    ['show e1', { action: 'show', eventId: 'e1' }],
    ['redrive e1', { action: 'redrive', eventId: 'e1', group: undefined }],
    ['redrive e1 --group g', { action: 'redrive', eventId: 'e1', group: 'g' }],
    ['redrive --all --group g', { action: 'redrive-all', group: 'g' }],
    ['remove-group g', { action: 'remove-group', group: 'g' }],
  ])('the command line takes events %s', (line, action) => {
    const args = ['events', ...line.split(' ')];
    const env = { REDIS_URL: 'redis://r' };
    expect(parseCommand(args, env)).toEqual({ command: 'events', ...place, ...action });
    const more = ['--key-prefix', 'p', '--timeout', '9', '--json'];
    expect(parseCommand([...args, ...more], env)).toMatchObject({ keyPrefix: 'p', timeout: 9, json: true });
  });

  const list = { action: 'list', status: undefined, name: undefined, unclaimed: false };
  it.each([
    ['list', list],
    [
      'list --status stuck --name order --unclaimed',
      { ...list, status: 'stuck', name: 'order', unclaimed: true },
    ],
    ['show o1', { action: 'show', sagaId: 'o1' }],
    ['retry o1', { action: 'retry', sagaId: 'o1' }],
    ['cancel o1', { action: 'cancel', sagaId: 'o1' }],
    ['skip o1 pay --reason paid', { action: 'skip', sagaId: 'o1', step: 'pay', reason: 'paid' }],
  ])('the command line takes sagas %s', (line, action) => {
    const args = ['sagas', ...line.split(' ')];
    const redis = { redis: 'redis://r', keyPrefix: 'holdfast', timeout: 5_000 };
    expect(parseCommand(args, { REDIS_URL: 'redis://r' })).toEqual({
      command: 'sagas',
      ...action,
      store: redis,
      json: false,
    });
    const more = ['--postgres', 'postgres://h', '--timeout', '9', '--json'];
    expect(parseCommand([...args, ...more], { REDIS_URL: 'redis://r' })).toEqual({
      command: 'sagas',
      ...action,
      store: { postgres: 'postgres://h', timeout: 9 },
      json: true,
    });
  });

  it('the command line needs to be told of a store if the environment names two', () => {
    const env = { REDIS_URL: 'redis://r', DATABASE_URL: 'postgres://h' };
    expect(errorOf(['sagas', 'list'], env).message).toContain('the sagas are in one store');
    expect(parseCommand(['sagas', 'list', '--redis', 'redis://s'], env)).toMatchObject({
      store: { redis: 'redis://s' },
    });
    expect(parseCommand(['sagas', 'list'], { ...env, REDIS_URL: '' })).toMatchObject({
      store: { postgres: 'postgres://h' },
    });
  });

  it('the command line finds the database by DATABASE_URL, unless --postgres says something else', () => {
    const env = { DATABASE_URL: 'postgres://from-environment' };
    const reset = { command: 'events', action: 'reset-source', timeout: 5_000, json: false };
    expect(parseCommand(['events', 'reset-source'], env)).toEqual({
      ...reset,
      postgres: 'postgres://from-environment',
    });
    const given = ['events', 'reset-source', '--postgres', 'postgresql://given/orders'];
    expect(parseCommand(given, env)).toEqual({ ...reset, postgres: 'postgresql://given/orders' });
  });

  const redis = ['--redis', 'redis://r'];
  it.each([
    [[], 'a command is missing'],
    [['instances'], "there is no command 'instances'"],
    [['services', '--nope'], "Unknown option '--nope'"],
    [['services', '--redis'], "'--redis <value>' argument missing"],
    [['services', '--watch=yes'], "'--watch' does not take an argument"],
    [['services'], '--redis <url>, or with REDIS_URL'],
    [['services', '--redis', ''], '--redis must be a URL'],
    [['services', '--redis', 'localhost:6379'], '--redis must be a URL'],
    [['services', '--redis', 'redis://host/zero'], '--redis must be a URL'],
    [['services', ...redis, 'users', 'no name'], 'unlike name 2'],
    [['services', ...redis, '--key-prefix', 'a b'], '--key-prefix must be letters'],
    [['services', ...redis, '--timeout', '0'], '--timeout must be a whole number from 1'],
    [['services', ...redis, '--timeout', 'soon'], '--timeout must be a whole number from 1'],
    [['services', ...redis, '--group', 'g'], 'services takes no option --group'],
    [['events', ...redis], 'a command of events is missing: lag, pending'],
    [['events', 'lags', ...redis], "there is no command of events 'lags': lag, pending"],
    [['events', 'lag'], '--redis <url>, or with REDIS_URL'],
    [['events', 'lag', 'g', ...redis], 'events lag takes no argument'],
    [['events', 'lag', '--watch', ...redis], 'events lag takes no option --watch'],
    [['events', 'groups', '--group', 'g', ...redis], 'events groups takes no option --group'],
    [['events', 'dead', '--group', 'no name', ...redis], 'the name of a group is letters'],
    [['events', 'show', ...redis], 'events show takes one argument: the id of an event'],
    [['events', 'show', 'a', 'b', ...redis], 'events show takes one argument'],
    [['events', 'show', '', ...redis], 'the id of an event has 1 to 256 characters'],
    [['events', 'redrive', ...redis], 'takes one argument: the id of an event, or --all'],
    [['events', 'redrive', '--all', ...redis], 'events redrive --all needs --group'],
    [['events', 'redrive', 'a', '--all', ...redis], 'takes no argument beside --all'],
    [['events', 'remove-group', ...redis], 'takes one argument: the name of a group'],
    [['events', 'remove-group', 'no name', ...redis], 'the name of a group is letters'],
    [['events', 'reset-source'], '--postgres <url>, or with DATABASE_URL'],
    [['events', 'reset-source', ...redis], 'events reset-source takes no option --redis'],
    [['events', 'reset-source', '--postgres', 'localhost'], '--postgres must be a URL'],
    [['events', 'reset-source', '--postgres', 'mysql://h'], '--postgres must be a URL'],
    [['sagas', ...redis], 'a command of sagas is missing: list, show, retry, skip, cancel'],
    [['sagas', 'lists', ...redis], "there is no command of sagas 'lists'"],
    [['sagas', 'list'], 'where are the sagas?'],
    [['sagas', 'list', ...redis, '--postgres', 'postgres://h'], 'the sagas are in one store'],
    [['sagas', 'list', '--postgres', 'mysql://h'], '--postgres must be a URL'],
    [
      ['sagas', 'list', '--postgres', 'postgres://h', '--key-prefix', 'p'],
      '--key-prefix is for sagas in Redis',
    ],
    [['sagas', 'list', 'o1', ...redis], 'sagas list takes no argument'],
    [['sagas', 'list', '--status', 'done', ...redis], '--status is one of running, compensating'],
    [['sagas', 'list', '--name', 'no name', ...redis], '--name is letters'],
    [['sagas', 'list', '--reason', 'r', ...redis], 'sagas list takes no option --reason'],
    [['sagas', 'show', ...redis], 'sagas show takes one argument: the id of a saga'],
    [['sagas', 'show', 'no id', ...redis], 'the id of a saga is letters'],
    [['sagas', 'retry', 'a', 'b', ...redis], 'sagas retry takes one argument'],
    [['sagas', 'cancel', 'a', '--status', 'stuck', ...redis], 'sagas cancel takes no option --status'],
    [['sagas', 'skip', 'a', '--reason', 'r', ...redis], 'the id of a saga, and the step'],
    [['sagas', 'skip', 'a', 's', ...redis], 'sagas skip needs --reason'],
    [['sagas', 'skip', 'a', 'no step', '--reason', 'r', ...redis], 'the name of a step is letters'],
  ])('the command line rejects %j, and says that %s', (args, message) => {
    const error = errorOf(args);
    expect(error.message).toContain(message);
    expect(error.message).toContain('holdfast --help');
    expect(error.exitCode).toBe(2);
  });

  it('the command line names REDIS_URL if that is no URL, and ignores an empty one', () => {
    expect(errorOf(['services'], { REDIS_URL: 'redis' }).message).toContain('REDIS_URL must be a URL');
    expect(errorOf(['services'], { REDIS_URL: '' }).message).toContain('where is Redis?');
  });

  it('the command line names DATABASE_URL if that is no URL, and ignores an empty one', () => {
    const reset = ['events', 'reset-source'];
    expect(errorOf(reset, { DATABASE_URL: 'db' }).message).toContain('DATABASE_URL must be a URL');
    expect(errorOf(reset, { DATABASE_URL: '' }).message).toContain('where is the database?');
  });

  it.each([
    [['redis://:hunter2@redis']],
    [['services', 'redis://:hunter2@redis']],
    [['services', '--redis', 'http://:hunter2@redis']],
    [['services', '--redis', 'redis://:hunter2#@redis']],
    [['services', '--redis', 'redis://:hunter2@redis/zero']],
    [['services', '--redis://:hunter2@redis']],
    [['services', '--watch=redis://:hunter2@redis']],
    [['events', 'redis://:hunter2@redis']],
    [['events', 'lag', 'redis://:hunter2@redis']],
    [['events', 'remove-group', 'redis://:hunter2@redis']],
    [['events', 'reset-source', 'postgres://:hunter2@h']],
    [['events', 'reset-source', '--postgres', 'pg://:hunter2@h']],
    [['sagas', 'show', 'redis://:hunter2@redis']],
    [['sagas', 'list', '--postgres', 'pg://:hunter2@h']],
  ])('the command line never repeats a password: %j', (args) => {
    expect(errorOf(args).message).not.toContain('hunter2');
  });
});
