/** The clients of a gateway, in a process of their own. */
import { play } from '../../../bench/support/part.ts';
import { abandonRequests, countStatuses, SteadyLoad } from './clients.ts';

export interface ClientsTask {
  readonly url: string;
  readonly seed: number;
  /** Connections of the steady load, or requests of the other questions. */
  readonly count: number;
}

await play<ClientsTask>(async ({ url, seed, count }) => {
  let load: SteadyLoad | undefined;
  return {
    begin() {
      load = new SteadyLoad(url, count, seed);
    },
    end: () => load!.end(),
    abandon: () => abandonRequests(url, count, seed),
    unreachable: () => countStatuses(url, '/gone', count),
  };
});
