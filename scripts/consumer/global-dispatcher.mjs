/**
 * Imports the given packages in their order, uses holdfast if it is among them, and prints whose the global dispatchers
 * are then, and after a request by Node's own fetch.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const names = process.argv.slice(2);
const dispatchers = () =>
  [1, 2].map((version) => globalThis[Symbol.for(`undici.globalDispatcher.${version}`)]);

const server = createServer(async (request, response) => response.end(await text(request)));
await once(server.listen(0, '127.0.0.1'), 'listening');
const origin = `http://127.0.0.1:${server.address().port}`;

async function use({ ServiceClient, StaticServiceDiscovery }) {
  if (existsSync('node_modules/ioredis')) await import('holdfast/redis');
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ 'user-service': [origin] }) });
  assert.equal(await client.call({ service: 'user-service', method: 'POST', path: '/', body: 'x' }), 'x');
  const answer = await client.dispatcher.request({ origin, path: '/', method: 'PUT', body: 'y' });
  assert.equal(await answer.body.text(), 'y');
  await client.close();
}

for (const name of names) {
  const imported = await import(name);
  if (name === 'holdfast') await use(imported);
  else assert.equal(await (await imported.request(origin, { method: 'POST', body: 'z' })).body.text(), 'z');
}
const atFirst = dispatchers();
// What newer releases of undici refuse to take from the fetch of older ones.
const init = { method: 'POST', body: 'abc', headers: { 'content-length': '3' } };
const sent = await fetch(origin, init).then(
  (response) => response.text(),
  ({ message }) => message,
);
const atLast = dispatchers();
const { Dispatcher } = await import('undici');
const ownerOf = (dispatcher) => {
  if (dispatcher === undefined) return 'none';
  return dispatcher instanceof Dispatcher ? 'undici' : 'Node';
};
console.log(JSON.stringify({ atFirst: atFirst.map(ownerOf), atLast: atLast.map(ownerOf), sent }));
server.close();
