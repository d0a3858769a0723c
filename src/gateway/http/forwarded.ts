/** A part of what proxies tell of a request that they got: RFC 7239, section 5. Each field may be missing. */
export interface ForwardedElement {
  /** The node that has sent it, perhaps with a port. */
  readonly for?: string | undefined;
  readonly host?: string | undefined;
  readonly proto?: string | undefined;
}

/** One parameter, its value as a quoted string or without quotes, and what separates it from the next one. */
const PARAMETER = /[ \t]*([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))[ \t]*([;,]|$)/gy;

/** Parses `Forwarded`; gives no element if any is malformed. */
export function parseForwarded(value: string): ForwardedElement[] {
  const elements: Record<string, string>[] = [];
  let element: Record<string, string> | undefined;
  let end = 0;
  for (const [whole, name = '', quoted, token = '', separator] of value.matchAll(PARAMETER)) {
    if (element === undefined) {
      element = Object.create(null) as Record<string, string>;
      elements.push(element);
    }
    const key = name.toLowerCase();
    if (key in element) return [];
    element[key] = quoted?.replace(/\\(.)/g, '$1') ?? token;
    if (separator === ',') element = undefined;
    end += whole.length;
  }
  return end === value.length ? elements : [];
}
