/** The process of one proxy. It tells its address, and what it has used since it was last asked. */
import { play } from '../support/part.ts';
import { type ContenderName, contenders, type ProxyOptions } from './contenders.ts';

export interface ProxyTask extends ProxyOptions {
  readonly contender: ContenderName;
}

export interface Usage {
  /** Microseconds of CPU, those of the system included. */
  readonly cpu: number;
  /** Bytes of memory at most. */
  readonly peak: number;
}

/** Milliseconds. */
const LOOK_EACH = 20;

await play<ProxyTask>(async ({ contender, ...options }) => {
  const url = await contenders[contender](options);
  let peak = 0;
  let before = process.cpuUsage();
  setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, LOOK_EACH);
  return {
    url: () => url,
    usage(): Usage {
      const { user, system } = process.cpuUsage(before);
      const usage = { cpu: user + system, peak };
      before = process.cpuUsage();
      peak = process.memoryUsage.rss();
      return usage;
    },
  };
});
