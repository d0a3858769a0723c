/** Gives the dispatcher to whatever takes one: Node's own fetch, and what each installed undici has. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { createDispatcher, RetryBudget, StaticServiceDiscovery } from 'holdfast';

/** Each path fails once, so that every second request is a retry. */
const budget = new RetryBudget({ ratio: 1 });
const URL_OF_SERVICE = 'http://user-service';

/** Answers each path with 503 the first time, and then tells what it was sent. */
const seen = new Set();
const server = createServer(async (request, response) => {
  const body = await text(request);
  const { method, url, headers } = request;
  response.writeHead(seen.has(url) ? 200 : 503, { 'content-type': 'application/json' });
  seen.add(url);
  response.end(JSON.stringify({ method, url, body, length: headers['content-length'] }));
});
await once(server.listen(0, '127.0.0.1'), 'listening');
const origin = `http://127.0.0.1:${server.address().port}`;
const dispatcher = createDispatcher({
  discovery: new StaticServiceDiscovery({ 'user-service': [origin] }),
  defaults: { retry: { backoff: () => 0, budget }, circuitBreaker: false },
});

let paths = 0;
/** One that has not been asked for. */
const newPath = () => `/users/${++paths}`;

async function checkFetch(fetch, options) {
  const path = newPath();
  const got = await fetch(`${URL_OF_SERVICE}${path}`, options);
  assert.equal((await got.json()).url, path);

  const put = { method: 'PUT', body: 'abc', headers: { 'Content-Length': '3' }, ...options };
  const sent = await fetch(`${URL_OF_SERVICE}${newPath()}`, put);
  assert.deepEqual(
    [sent.status, await sent.json()].map((part) => part.length ?? part),
    [200, '3'],
  );

  const post = await fetch(`${URL_OF_SERVICE}${newPath()}`, { method: 'POST', body: 'abc', ...options });
  assert.equal(post.status, 503);
  await post.text();

  await fetch(`${origin}/elsewhere`, put);
  const elsewhere = await fetch(`${origin}/elsewhere`, put);
  assert.deepEqual([elsewhere.status, (await elsewhere.json()).body], [200, 'abc']);

  const signal = AbortSignal.abort(new Error('enough'));
  await assert.rejects(fetch(`${URL_OF_SERVICE}${newPath()}`, { ...options, signal }), { message: 'enough' });
}

async function checkRequest({ request, stream }, options) {
  const path = newPath();
  const { statusCode, body } = await request(`${URL_OF_SERVICE}${path}`, options);
  assert.deepEqual([statusCode, (await body.json()).url], [200, path]);
  let status;
  await stream(`${URL_OF_SERVICE}${newPath()}`, { method: 'GET', ...options }, (head) => {
    status = head.statusCode;
    return new Writable({ write: (_chunk, _encoding, done) => done() });
  });
  assert.equal(status, 200);
}

async function checkMockAgent({ MockAgent, request }) {
  const own = createDispatcher({
    discovery: new StaticServiceDiscovery({ 'user-service': [origin] }),
    defaults: { retry: { backoff: () => 0, budget }, circuitBreaker: false },
  });
  const agent = new MockAgent({ agent: own });
  agent.get(URL_OF_SERVICE).intercept({ path: '/mocked' }).reply(200, { mocked: true });
  const mocked = await request(`${URL_OF_SERVICE}/mocked`, { dispatcher: agent });
  assert.deepEqual(await mocked.body.json(), { mocked: true });
  const path = newPath();
  const real = await request(`${URL_OF_SERVICE}${path}`, { dispatcher: agent });
  assert.equal((await real.body.json()).url, path);
  await agent.close();
}

await checkFetch(fetch, { dispatcher });

const resolve = (from) => createRequire(from).resolve('undici');
const shared = resolve(import.meta.url) === resolve(createRequire(import.meta.url).resolve('holdfast'));
const names = ['undici', 'undici-7', 'undici-8'].filter((name) => existsSync(`node_modules/${name}`));
for (const name of names) {
  const undici = await import(name);
  await checkFetch(undici.fetch, { dispatcher });
  await checkRequest(undici, { dispatcher });
  if (name === 'undici' && shared) await checkMockAgent(undici);

  const former = undici.getGlobalDispatcher();
  undici.setGlobalDispatcher(dispatcher);
  await checkFetch(undici.fetch, {});
  await checkRequest(undici, {});
  await checkFetch(fetch, {});
  undici.setGlobalDispatcher(former);
}

await dispatcher.close();
server.close();
console.log(`Node's own fetch, and that of ${names.join(', ')}`);
