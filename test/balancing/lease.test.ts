import { describe, expect, it, vi } from 'vitest';
import { fakeTimeAndChance, inTurn, type World, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const outlierDetection = { consecutiveFailures: 2, baseEjectionTime: 1_000 };

/** Three, of which 'a' is due for a probe. */
async function due(options: object = {}): Promise<World> {
  const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection, ...options });
  fleet.fail('a', 2);
  vi.advanceTimersByTime(1_100);
  return fleet;
}

describe('the beginning of a response', () => {
  it('the beginning of a response returns an instance by a probe whose body is still under way', async () => {
    const fleet = await due();
    const lease = fleet.acquireOn('a');
    expect(lease.probe).toBe(true);
    vi.advanceTimersByTime(5);
    lease.responded();
    expect(fleet.told.at(-1)).toBe('return a');
    expect(lease.candidate.inFlight).toBe(1);
    expect(lease.candidate.latencyAt(performance.now())).toBe(5);
    expect(fleet.picks(3).sort()).toEqual(['a', 'b', 'c']);
    expect(lease.release()).toBe('outdated');
    expect(lease.candidate.inFlight).toBe(0);
  });

  it('the beginning of a response counts once, and the end of the body, however it ends, does not count again', async () => {
    for (const end of [{}, { error }, { cancelled: true }]) {
      const fleet = await due();
      const lease = fleet.acquireOn('a');
      lease.responded();
      lease.responded();
      lease.release(end);
      lease.responded();
      expect(fleet.told.filter((event) => !event.startsWith('join'))).toEqual(['eject a', 'return a']);
      fleet.fail('a', 1);
      expect(fleet.ejections).toHaveLength(1);
    }
  });

  it('the beginning of a response says nothing of a call that is no probe: its end does', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn, outlierDetection });
    const lease = fleet.acquireOn('a');
    fleet.fail('a', 1);
    lease.responded();
    lease.release({ error });
    expect(fleet.told.at(-1)).toBe('eject a');
  });

  it('the beginning of a response says nothing of a probe that is outdated', async () => {
    const fleet = await due();
    const lease = fleet.acquireOn('a');
    await fleet.leave('a');
    lease.responded();
    expect(fleet.told.at(-1)).toBe('leave a');
  });
});

describe('a probe', () => {
  it('a probe that is inconclusive or cancelled makes room for the next', async () => {
    for (const end of [{ cancelled: true }, { inconclusive: true }]) {
      const fleet = await due();
      const lease = fleet.acquire();
      expect(lease.probe).toBe(true);
      expect(fleet.acquire().probe).toBe(false);
      lease.release(end);
      expect(fleet.told.at(-1)).toBe('eject a');
      expect(fleet.acquire().probe).toBe(true);
    }
  });

  it('a probe should be given up after ten times the mean latency, a second at least; no other call should', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection: { consecutiveFailures: 1 } });
    const probe = () => {
      fleet.fail('a', 1);
      vi.advanceTimersByTime(20_000);
      return fleet.acquire();
    };
    expect(fleet.acquireOn('b').probeTimeout).toBeUndefined();
    const first = probe();
    expect(first.probeTimeout).toBe(1_000);
    first.release();
    for (let call = 0; call < 200; call++) fleet.acquireOn('b').release({ latency: 250 });
    expect(probe().probeTimeout).toBeCloseTo(2_500, 0);
  });

  it('a call that explores an instance whose latest call failed has a probe timeout as well', async () => {
    const fleet = await world(['a', 'b']);
    for (const id of ['a', 'b']) fleet.acquireOn(id).release({ latency: 10 });
    fleet.fail('a', 1);
    fleet.picks(50);
    vi.advanceTimersByTime(1_000);
    const exploring = [fleet.acquire(), fleet.acquire()].find((lease) => lease.exploring)!;
    expect(exploring.instance.instanceId).toBe('a');
    expect(exploring.probeTimeout).toBe(1_000);
  });
});

describe('the candidates of a lease', () => {
  it('the candidates of a lease are all instances that calls go to, as they change', async () => {
    const fleet = await world(['a', 'b']);
    const lease = fleet.acquire();
    const ids = () => lease.candidates.map(({ instance: { instanceId } }) => instanceId);
    expect(ids()).toEqual(['a', 'b']);
    await fleet.join('c');
    await fleet.join('b', { status: 'unhealthy' });
    expect(ids()).toEqual(['a', 'c']);
  });
});

describe('a cancelled call of a long time', () => {
  const outlierDetection = { consecutiveFailures: 1 };
  const error = new Error('its time is over');

  /** The mean latency is 20 ms. */
  async function known(): Promise<World> {
    const fleet = await world(['a', 'b'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.acquireOn(id).release({ latency: 20 });
    return fleet;
  }

  it('a cancelled call is a failure of its instance if it ran out of time after ten times the mean latency', async () => {
    const fleet = await known();
    expect(fleet.acquireOn('a').release({ cancelled: true, error, latency: 199 })).toBe('inconclusive');
    expect(fleet.acquireOn('a').release({ cancelled: true, latency: 10_000 })).toBe('inconclusive');
    expect(fleet.ejections).toEqual([]);
    expect(fleet.acquireOn('a').release({ cancelled: true, error, latency: 201 })).toBe('inconclusive');
    expect(fleet.ejections).toMatchObject([{ reason: 'consecutive-failures', error }]);
  });

  it('a cancelled call is no failure while no mean latency is known', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection });
    fleet.acquireOn('a').release({ cancelled: true, error, latency: 10_000 });
    expect(fleet.ejections).toEqual([]);
  });

  it('a cancelled probe has failed after ten times the mean latency, and the next one waits', async () => {
    const fleet = await known();
    fleet.fail('a', 1);
    vi.advanceTimersByTime(1_100);
    fleet.acquireOn('a').release({ cancelled: true, latency: 50 });
    fleet.acquireOn('a').release({ cancelled: true, latency: 300 });
    expect(fleet.ejections.map(({ reason }) => reason)).toEqual(['consecutive-failures', 'probe']);
    expect(fleet.picks(10)).not.toContain('a');
  });
});
