const HEADER = 'sec-websocket-protocol';

/** Begins the subprotocol in which a page shows its token. */
const PREFIX = 'bearer.authorization.';

/**
 * Moves the token of a page to `Authorization`. A browser lets a page set no header of a WebSocket but
 * the subprotocols, so the token is offered as one of them, as at the API server of Kubernetes. It needs
 * no encoding: all letters of a JSON Web Token may be in the name of a subprotocol.
 *
 * @param headers names in lower case and values in turn
 */
export function takeTokenFromProtocols(headers: readonly string[]): string[] {
  const result: string[] = [];
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index]!;
    const value = headers[index + 1]!;
    if (name !== HEADER || !value.includes(PREFIX)) {
      result.push(name, value);
      continue;
    }
    const offered = value.split(',').map((protocol) => protocol.trim());
    const others = offered.filter((protocol) => !protocol.startsWith(PREFIX));
    if (others.length > 0) result.push(name, others.join(', '));
    for (const protocol of offered) {
      if (protocol.startsWith(PREFIX))
        result.push('authorization', `Bearer ${protocol.slice(PREFIX.length)}`);
    }
  }
  return result;
}
