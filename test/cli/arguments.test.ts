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

  it.each([
    [['redis://:hunter2@redis']],
    [['services', 'redis://:hunter2@redis']],
    [['services', '--redis', 'http://:hunter2@redis']],
    [['services', '--redis', 'redis://:hunter2#@redis']],
    [['services', '--redis', 'redis://:hunter2@redis/zero']],
    [['services', '--redis://:hunter2@redis']],
    [['services', '--watch=redis://:hunter2@redis']],
  ])('the command line never repeats a password: %j', (args) => {
    expect(errorOf(args).message).not.toContain('hunter2');
  });
});
