/** The servers of FaultyInstances: see there. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { seeded } from '../../bench/support/seeded.ts';
import type { Behaviour, Question } from './faulty-instances.ts';

const HOST = '127.0.0.1';
const random = seeded(Number(process.argv[2]));

class FaultyInstance {
  received = 0;
  /** Milliseconds that the next response takes. */
  slowNext = 0;
  #behaviour: Behaviour = {};
  #port = 0;
  // Idle connections stay: to lose one at the wrong moment would be a fault that nobody asked for.
  readonly #server = createServer({ keepAliveTimeout: 120_000 }, (_request, response) => {
    this.received++;
    if (this.#behaviour.fault !== 'hang') this.#respond(response);
  });

  constructor() {
    this.#server.on('connection', (socket) => {
      if (this.#behaviour.fault !== 'reset') return;
      this.received++;
      socket.destroy();
    });
  }

  get id(): string {
    return `${HOST}:${this.#port}`;
  }

  async listen(): Promise<void> {
    if (this.#server.listening) return;
    this.#server.listen(this.#port, HOST);
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  async behave(behaviour: Behaviour): Promise<void> {
    this.#behaviour = behaviour;
    const { fault } = behaviour;
    if (fault === 'refused') this.#server.close();
    else await this.listen();
    if (fault === 'refused' || fault === 'reset') this.#server.closeAllConnections();
  }

  #respond(response: ServerResponse): void {
    const { fault, share = 1, latency = 0 } = this.#behaviour;
    const status = typeof fault === 'number' && (share === 1 || random() < share) ? fault : 200;
    const wait = Math.max(latency, this.slowNext);
    this.slowNext = 0;
    const respond = () => void response.writeHead(status, { 'content-type': 'text/plain' }).end(this.id);
    if (wait === 0) respond();
    else setTimeout(respond, wait);
  }
}

const instances = new Map<string, FaultyInstance>();

async function add(count: number, behaviour: Behaviour): Promise<string[]> {
  const ids: string[] = [];
  while (ids.length < count) {
    const instance = new FaultyInstance();
    await instance.listen();
    // The port of an instance that refuses connections stays its own.
    if (instances.has(instance.id)) continue;
    instances.set(instance.id, instance);
    ids.push(instance.id);
    await instance.behave(behaviour);
  }
  return ids;
}

async function answer(question: Question): Promise<unknown> {
  switch (question.ask) {
    case 'add':
      return add(question.count, question.behaviour);
    case 'set':
      return void (await Promise.all(
        question.ids.map((id) => instances.get(id)!.behave(question.behaviour)),
      ));
    case 'slow':
      instances.get(question.id)!.slowNext = question.latency;
      return;
    case 'received':
      return question.ids.map((id) => instances.get(id)!.received);
  }
}

process.on('message', async ([number, question]: [number, Question]) => {
  process.send!([number, await answer(question)]);
});
process.on('disconnect', () => process.exit());
