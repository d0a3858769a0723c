import { exportJWK, generateKeyPair } from 'jose';
import { type ContenderName, contenders } from './gateway/contenders.ts';
import type { LoadResult, LoadTask } from './gateway/load-process.ts';
import { hasNginx } from './gateway/nginx.ts';
import type { ProxyTask, Usage } from './gateway/proxy-process.ts';
import { WORKLOADS, type WorkloadName } from './gateway/workloads.ts';
import { median, table } from './support/measure.ts';
import { Part } from './support/part.ts';

const NAMES: Record<ContenderName, string> = {
  limit: 'node:http + undici dispatch (the limit)',
  holdfast: '**holdfast gateway**',
  holdfastWithTokens: '**holdfast gateway**, JWT',
  fastify: '@fastify/http-proxy',
  middleware: 'http-proxy-middleware',
  nginx: 'nginx, one worker',
};
/** A gateway runs for long: the engine knows its code, for which it needs some ten seconds of load. */
const WARM_UP: Record<WorkloadName, number> = { get: 30, post: 15, download: 4 };
/** Many short rounds: the speed of a machine drifts, and a ratio is taken within a round. */
const ROUNDS: Record<WorkloadName, number> = { get: 21, post: 21, download: 7 };

/** A round of one contender with one workload. */
interface Round extends LoadResult, Usage {}

type Rounds = Record<WorkloadName, Record<string, Round[]>>;

/** Requests through a proxy to a service, each proxy in a process of its own. The contenders take turns. */
export async function gateway(): Promise<void> {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const kid = 'bench';
  const upstream = await startPart('upstream', null);
  const origins = await upstream.ask<ProxyTask['origins']>('origins');
  const key = { ...(await exportJWK(publicKey)), kid, alg: 'ES256' };
  const names = (Object.keys(contenders) as ContenderName[]).filter((name) => name !== 'nginx' || hasNginx());
  const parts = new Map<ContenderName, Part>();
  const urls: Record<string, string> = {};
  for (const contender of names) {
    const part = await startPart('proxy', { contender, origins, key } satisfies ProxyTask);
    parts.set(contender, part);
    urls[contender] = await part.ask<string>('url');
  }
  const task: LoadTask = { urls, key: { ...(await exportJWK(privateKey)), kid } };
  const load = await startPart('load', task);
  const rounds = await playRounds(parts, load);
  for (const part of [load, ...parts.values(), upstream]) await part.end();
  tell(names, rounds);
}

function startPart(name: string, task: unknown): Promise<Part> {
  return Part.start(new URL(`./gateway/${name}-process.ts`, import.meta.url), task);
}

async function playRounds(parts: ReadonlyMap<ContenderName, Part>, load: Part): Promise<Rounds> {
  const rounds: Rounds = { get: {}, post: {}, download: {} };
  for (const workload of Object.keys(WORKLOADS) as WorkloadName[]) {
    for (let round = -WARM_UP[workload]; round < ROUNDS[workload]; round++) {
      for (const [name, part] of parts) {
        await part.ask<Usage>('usage');
        const result = await load.ask<LoadResult>(`${name} ${workload}`);
        const usage = await part.ask<Usage>('usage');
        if (round < 0) continue;
        rounds[workload][name] ??= [];
        rounds[workload][name].push({ ...result, ...usage });
      }
    }
  }
  return rounds;
}

function tell(names: readonly ContenderName[], rounds: Rounds): void {
  for (const workload of ['get', 'post'] as const) {
    const of = rounds[workload];
    const rows = names.map((name) => [
      NAMES[name],
      median(of[name]!.map(({ perSecond }) => perSecond)).toFixed(0),
      median(of[name]!.map(({ p99 }) => p99)).toFixed(1),
      ratio(of, name, 'fastify', ({ perSecond }) => perSecond),
      ratio(of, name, 'limit', ({ perSecond }) => perSecond),
      // The CPU of nginx is not that of the process that has started it.
      ...(name === 'nginx'
        ? ['', '']
        : [
            median(of[name]!.map(cpuOf)).toFixed(0),
            // The other way round: less is better.
            ratio(of, 'fastify', name, cpuOf),
          ]),
    ]);
    const title = workload === 'get' ? 'GET of 150 bytes, 64 connections' : 'POST of 10 kB, 64 connections';
    const head = ['requests /s', 'p99 ms', 'to http-proxy', 'to the limit', 'CPU µs', 'CPU to http-proxy'];
    table(title, ['', ...head], rows);
  }
  const rows = names.map((name) => {
    const own = rounds.download[name]!;
    const peaks = name === 'nginx' ? [] : [own[0]!, own.at(-1)!];
    return [
      NAMES[name],
      (median(own.map(({ bytesPerSecond }) => bytesPerSecond)) / 1e6).toFixed(0),
      ratio(rounds.download, name, 'fastify', ({ bytesPerSecond }) => bytesPerSecond),
      ...peaks.map(({ peak }) => (peak / 1e6).toFixed(0)),
    ];
  });
  table(
    'download of 10 MB, 8 at a time',
    ['', 'MB/s', 'to http-proxy', 'RSS MB, first round', 'last round'],
    rows,
  );
}

const cpuOf = ({ cpu, requests }: Round) => cpu / requests;

function ratio(
  rounds: Record<string, Round[]>,
  name: string,
  other: string,
  figure: (round: Round) => number,
): string {
  return median(rounds[name]!.map((round, index) => figure(round) / figure(rounds[other]![index]!))).toFixed(
    2,
  );
}
