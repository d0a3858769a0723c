import {
  type ApiKeyOptions,
  type AuthOptions,
  type JwtOptions,
  PUBLIC_KEY_ALGORITHMS,
  type RouteAuth,
} from '../auth/auth-options.ts';
import { milliseconds, scope } from './scalar-shapes.ts';
import {
  anyText,
  choice,
  codeOnly,
  either,
  externalObject,
  flag,
  fromEnv,
  list,
  object,
  required,
  text,
} from './shape.ts';

const jwt = object<JwtOptions>('JwtOptions', {
  issuer: required(fromEnv(anyText)),
  audience: required(either(fromEnv(anyText), list(fromEnv(anyText), { min: 1 }))),
  algorithms: required(list(choice(...PUBLIC_KEY_ALGORITHMS), { min: 1 })),
  jwks: required(
    either(
      fromEnv(text(/^https?:\/\/.+$/, "the URL of the keys, such as 'https://id.example/jwks'")),
      externalObject('a JSON Web Key Set'),
    ),
  ),
  clockTolerance: milliseconds,
});

const apiKey = object<ApiKeyOptions>('ApiKeyOptions', {
  hash: required(fromEnv(text(/^[0-9a-fA-F]{64}$/, 'the SHA-256 of a key, in hexadecimal'))),
  subject: required(anyText),
  scopes: list(scope),
});

const identity = object<NonNullable<AuthOptions['identity']>>('IdentityOptions', {
  key: required(fromEnv(externalObject('a JSON Web Key, or its JSON in a variable'), parseJson)),
});

/** Gives a text that is no JSON as it is, which is then reported as no object. */
function parseJson(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

export const auth = object<AuthOptions>('AuthOptions', {
  jwt: either(jwt, list(jwt, { min: 1 })),
  apiKeys: either(
    list(apiKey, { min: 1 }),
    codeOnly((value) => typeof value === 'function', 'a function that looks a key up'),
  ),
  forwardAuthorization: flag,
  identity,
});

export const routeAuth = object<RouteAuth>('RouteAuth', { scopes: list(scope) });
