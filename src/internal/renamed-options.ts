/**
 * Rejects an option that is given under the name that it had in an earlier version.
 *
 * @param renamed the new name of each option, by its old name.
 * @throws TypeError naming the old option and the new one.
 */
export function rejectRenamedOptions(
  owner: string,
  options: object,
  renamed: Readonly<Record<string, string>>,
): void {
  for (const [before, now] of Object.entries(renamed)) {
    if (Object.hasOwn(Object(options), before)) {
      throw new TypeError(`${owner} has no option '${before}' any more: it is named '${now}' now`);
    }
  }
}
