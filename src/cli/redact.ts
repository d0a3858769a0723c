import { unescape as decode } from 'node:querystring';

/** Replaces the password of a URL, since a server may repeat in an error what it was sent. */
export function redactPassword(text: string, url: string): string {
  const { password, searchParams } = new URL(url);
  const secrets = [password, decode(password), searchParams.get('password') ?? ''].filter(Boolean);
  return secrets.reduce((rest, secret) => rest.replaceAll(secret, '***'), text);
}
