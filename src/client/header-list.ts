/** Gives the index of a name in a list of names and values in turn; -1 if it is not there. */
export function indexOfHeader(headers: readonly string[], name: string): number {
  for (let index = 0; index < headers.length; index += 2) if (headers[index] === name) return index;
  return -1;
}

/** Sets a header in a list of names and values in turn, so that the list has it once. */
export function setHeader(headers: string[], name: string, value: string): void {
  const index = indexOfHeader(headers, name);
  if (index === -1) headers.push(name, value);
  else {
    headers[index + 1] = value;
    for (let other = headers.length - 2; other > index; other -= 2) {
      if (headers[other] === name) headers.splice(other, 2);
    }
  }
}
