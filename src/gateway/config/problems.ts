import { GatewayConfigError } from '../../errors.ts';

/** The way to an option: names of fields, and positions in lists. */
export type Path = readonly (string | number)[];

/** Something that is wrong with an option. */
export interface Problem {
  readonly path: Path;
  readonly reason: string;
}

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** An option that is being read, and the list of what is wrong with all of them. */
export class OptionPlace {
  readonly path: Path;
  readonly problems: Problem[];
  /** Given for a file, in whose marked fields `${env:NAME}` stands for a variable. */
  readonly env: Environment | undefined;

  constructor(path: Path, problems: Problem[], env?: Environment) {
    this.path = path;
    this.problems = problems;
    this.env = env;
  }

  at(...path: Path): OptionPlace {
    return new OptionPlace([...this.path, ...path], this.problems, this.env);
  }

  /** Gives the place of a value that comes from a variable: `${env:…}` in it is only text. */
  inserted(): OptionPlace {
    return new OptionPlace(this.path, this.problems);
  }

  /** Whether nothing is wrong there, or in a part of it. */
  isClean(...path: Path): boolean {
    const whole = [...this.path, ...path];
    return !this.problems.some((problem) => whole.every((part, index) => problem.path[index] === part));
  }

  report(reason: string): void {
    this.problems.push({ path: this.path, reason });
  }

  /**
   * Runs a check that throws, and reports what it throws at the place, or at the part of it with which the
   * message begins.
   *
   * @param name of the place in messages: `auth.jwt[0] needs …` tells of the part `jwt[0]` of `auth`
   */
  tell(name: string, check: () => void): void {
    try {
      check();
    } catch (error) {
      const { message } = error as Error;
      const [, part = '', reason = message] =
        new RegExp(`^${name}([\\w.[\\]]*) (.+)$`, 's').exec(message) ?? [];
      this.at(...parsePath(part)).report(reason);
    }
  }
}

/** Writes a path as code would: `routes[2].rewrite`. */
export function formatPath(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    if (!/^[A-Za-z_]\w*$/.test(part)) return `${text}[${JSON.stringify(part.slice(0, 100))}]`;
    return text === '' ? part : `${text}.${part}`;
  }, '');
}

/** Reads a path that was written as code would: `.jwt[0]`. */
function parsePath(text: string): Path {
  return (text.match(/\w+/g) ?? []).map((part) => (/^\d+$/.test(part) ? Number(part) : part));
}

/** @throws GatewayConfigError that tells all problems, if there are any */
export function throwProblems(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  throw new GatewayConfigError(problems.map(({ path, reason }) => ({ path: formatPath(path), reason })));
}
