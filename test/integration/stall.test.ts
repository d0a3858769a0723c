import { afterAll, beforeAll, describe, it } from 'vitest';
import {
  blockWhileReading,
  expectNobodyJudged,
  expectPostsOverNewConnections,
  expectStallTold,
  expectUnreadResponses,
  HeldServers,
  ways,
} from '../support/stalls.ts';

// A small form of `npm run trials -- event-loop-stall`, with the two ways that have connections of their own.

let held: HeldServers;

beforeAll(async () => {
  held = await HeldServers.start();
});

afterAll(() => held.kill());

const small = ways.filter(({ name }) => ['client.call()', 'createHttpAgent() in node:http'].includes(name));

describe.each(small)('$name, while this process is blocked,', (way) => {
  it('gets the responses that lay unread, and judges nobody', () => expectUnreadResponses(way, held));

  it('sends a POST over a new connection where the instance closed its idle ones unread', () =>
    expectPostsOverNewConnections(way, held.servers[0]!, blockWhileReading));
});

it('calls without a response end after this process was blocked, and judge nobody', () =>
  expectNobodyJudged(small[0]!, held));

it('a call that ran out of time while this process was blocked says for how long', () =>
  expectStallTold(held));
