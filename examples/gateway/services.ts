/** The services behind gateway.yaml, and an issuer of tokens for those who want to try it. */
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';

/** The ports of gateway.yaml begin here. */
const FIRST_PORT = Number(process.argv[2] ?? 9001);
const ISSUER = `http://127.0.0.1:${FIRST_PORT + 3}`;

const users = (instance: number): RequestListener => {
  return (request, response) => send(response, { id: request.url?.split('/').at(-1), instance });
};
const orders: RequestListener = ({ url }, response) => {
  if (url === '/orders') send(response, { ordered: true });
  else send(response, { euros: 2 });
};
const { privateKey, publicKey } = await generateKeyPair('ES256');
const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] };

for (const [index, listener] of [users(1), users(2), orders, issueKeys].entries()) {
  createServer(listener).listen(FIRST_PORT + index, '127.0.0.1');
}

const gateway = 'http://127.0.0.1:8080/api/v1';
console.log(`The services listen. Requests to try, the last one until there is a 429:

curl ${gateway}/prices/pear
curl ${gateway}/users/ada
curl ${gateway}/users/ada -H "Authorization: Bearer ${await tokenOf('ada', '')}"
curl -X POST ${gateway}/orders -H "Authorization: Bearer ${await tokenOf('ada', '')}"
curl -X POST ${gateway}/orders -H "Authorization: Bearer ${await tokenOf('ada', 'order')}"
curl -i ${gateway}/prices/pear
`);

function issueKeys(_request: unknown, response: ServerResponse): void {
  send(response, jwks);
}

function tokenOf(user: string, scope: string): Promise<string> {
  return new SignJWT({ scope })
    .setProtectedHeader({ alg: 'ES256', kid: 'k1', typ: 'JWT' })
    .setIssuer(ISSUER)
    .setAudience('shop')
    .setSubject(user)
    .setExpirationTime('1 hour')
    .sign(privateKey);
}

function send(response: ServerResponse, body: object): void {
  response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
}
