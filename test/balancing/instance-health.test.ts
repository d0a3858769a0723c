import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { InstanceHealth, type Probe } from '../../src/balancing/instance-health.ts';
import { type OutlierDetection, readOutlierDetectionOptions } from '../../src/balancing/outlier-detection.ts';

const defaults = readOutlierDetectionOptions({});

/** The health of an instance without a balancer around it, with calls and their results. */
class Patient {
  readonly health = new InstanceHealth();
  now = 0;
  readonly #rules: OutlierDetection;
  readonly #random: () => number;

  constructor(rules: OutlierDetection = defaults, random = () => 0) {
    this.#rules = rules;
    this.#random = random;
  }

  get state(): string {
    const { ejected, healthy, suspect } = this.health;
    return ejected ? 'ejected' : healthy ? 'healthy' : suspect ? 'suspect' : 'unknown';
  }

  begin(): Call {
    return new Call(this, this.health.beginCall(this.now));
  }

  succeed(): boolean {
    return this.begin().succeed();
  }

  /** Gives the time of the ejection that the last failure called for. */
  fail(times = 1): number | undefined {
    let wait: number | undefined;
    for (let time = 0; time < times; time++) wait = this.begin().fail();
    return wait;
  }

  failed(probe: boolean, reached: boolean): number | undefined {
    return this.health.recordFailure(probe, this.#rules) ? this.eject(reached) : undefined;
  }

  /** Ejects by a comparing rule, unless the failures in a row are reason enough. */
  eject(reached = true): number {
    return this.health.eject(this.now, reached, this.#rules, this.#random);
  }

  /** The waits until a call that can be repeated, and any other, may be a probe. */
  due(within = 100_000): [number, number] {
    const first = (repeatable: boolean) => {
      for (let wait = 0; wait <= within; wait++)
        if (this.health.mayProbe(this.now + wait, repeatable)) return wait;
      return Infinity;
    };
    return [first(true), first(false)];
  }
}

/** A call under way, as a lease has it. */
class Call {
  readonly probe: Probe | undefined;
  readonly #patient: Patient;
  readonly #generation: number;

  constructor(patient: Patient, probe: Probe | undefined) {
    this.#patient = patient;
    this.#generation = patient.health.generation;
    this.probe = probe;
  }

  get outdated(): boolean {
    return this.#generation !== this.#patient.health.generation;
  }

  cancel(): void {
    if (this.probe !== undefined) this.#patient.health.abandonProbe(this.probe);
  }

  /** True if it returns the instance. */
  succeed(): boolean {
    this.cancel();
    return !this.outdated && this.#patient.health.recordSuccess(this.#patient.now);
  }

  /** Gives the time of the ejection that it calls for. */
  fail(reached = true): number | undefined {
    this.cancel();
    return this.outdated ? undefined : this.#patient.failed(this.probe !== undefined, reached);
  }
}

let patient: Patient;
beforeEach(() => {
  patient = new Patient();
});

/** An instance that was ejected for failures in a row: its probe is due after a second. */
function failing(rules?: OutlierDetection): Patient {
  const ejected = new Patient(rules);
  ejected.fail(5);
  expect(ejected.health.failing).toBe(true);
  return ejected;
}

/** An instance that was ejected by comparison: its probe is due after 30 seconds. */
function compared(rules?: OutlierDetection): Patient {
  const ejected = new Patient(rules);
  ejected.succeed();
  ejected.eject();
  expect([ejected.state, ejected.health.failing]).toEqual(['ejected', false]);
  return ejected;
}

describe('the state of an instance', () => {
  it('the state of an instance is unknown until the first result, whatever calls are under way or were cancelled', () => {
    patient.begin();
    patient.begin().cancel();
    expect(patient.state).toBe('unknown');
  });

  it('the state of an instance is healthy after a success and suspect after a failure, whatever it was before', () => {
    patient.succeed();
    expect(patient.state).toBe('healthy');
    patient.fail();
    expect(patient.state).toBe('suspect');
    patient.succeed();
    expect(patient.state).toBe('healthy');
    const other = new Patient();
    other.fail();
    expect(other.state).toBe('suspect');
  });

  it('the state of an instance is ejected with the fifth failure in a row; a success begins the count anew', () => {
    patient.fail(4);
    patient.succeed();
    expect(patient.fail(4)).toBeUndefined();
    expect(patient.state).toBe('suspect');
    expect(patient.fail()).toBe(1_000);
    expect([patient.state, patient.health.failing]).toEqual(['ejected', true]);
  });

  it.each([['unknown'], ['healthy'], ['suspect']])(
    'the state of an instance can turn from %s to ejected by comparison',
    (state) => {
      if (state === 'healthy') patient.succeed();
      if (state === 'suspect') patient.fail(4);
      expect(patient.state).toBe(state);
      expect(patient.eject()).toBe(30_000);
      expect([patient.state, patient.health.failing]).toEqual(['ejected', false]);
    },
  );

  it('the state of an instance is never suspect or ejected without the rule of failures in a row, as with outlierDetection false', () => {
    const spared = new Patient(readOutlierDetectionOptions(false));
    spared.fail(1_000);
    expect(spared.state).toBe('unknown');
    spared.succeed();
    spared.fail(1_000);
    expect(spared.state).toBe('healthy');
  });

  it('the state of an instance is healthy again with the first success of a probe', () => {
    for (const ejected of [failing(), compared()]) {
      ejected.now = ejected.health.dueAt;
      expect(ejected.succeed()).toBe(true);
      expect(ejected.state).toBe('healthy');
      expect(ejected.succeed()).toBe(false);
      expect(ejected.fail(4)).toBeUndefined();
      expect(ejected.fail()).toBeDefined();
    }
  });
});

describe('a call on an ejected instance while there is no other', () => {
  it('a call on an ejected instance is no probe before its time', () => {
    const ejected = failing();
    ejected.now = 999;
    expect(ejected.begin().probe).toBeUndefined();
    ejected.now = 1_000;
    expect(ejected.begin().probe).toBeDefined();
  });

  it('a call on an ejected instance returns an instance that failed by a success, and not one that was ejected by comparison', () => {
    const down = failing();
    expect(down.succeed()).toBe(true);
    expect(down.state).toBe('healthy');
    const worse = compared();
    for (let call = 0; call < 100; call++) expect(worse.succeed()).toBe(false);
    expect(worse.state).toBe('ejected');
    worse.now = 30_000;
    expect(worse.succeed()).toBe(true);
  });

  it('a call on an ejected instance neither prolongs the ejection by a failure nor counts as another', () => {
    const down = failing();
    expect(down.fail(100)).toBeUndefined();
    expect(down.health.dueAt).toBe(1_000);
    expect(down.health.ejections).toBe(1);
  });

  it('a failed call on an ejected instance is one of five in a row that show it to be down after an ejection by comparison', () => {
    const worse = compared();
    worse.now = 500;
    expect(worse.fail(4)).toBeUndefined();
    expect(worse.fail()).toBe(1_000);
    expect([worse.health.failing, worse.health.dueAt]).toEqual([true, 1_500]);
  });
});

describe('a result of a call that began in an earlier generation', () => {
  const changes: Record<string, (patient: Patient) => void> = {
    'the ejection': (patient) => void patient.fail(5),
    'the ejection by comparison': (patient) => void patient.eject(),
    'the return': (patient) => {
      patient.fail(5);
      patient.succeed();
    },
    'the new start': (patient) => patient.health.startAnew(patient.now),
  };

  it.each(Object.entries(changes))(
    'a result of a call that began in an earlier generation has no effect after %s',
    (_, change) => {
      const calls = Array.from({ length: 20 }, () => patient.begin());
      change(patient);
      const before = [patient.state, patient.health.dueAt, patient.health.generation];
      for (const [index, call] of calls.entries()) {
        expect(call.outdated).toBe(true);
        if (index % 2 === 0) call.fail();
        else call.succeed();
      }
      expect([patient.state, patient.health.dueAt, patient.health.generation]).toEqual(before);
    },
  );

  it('the result of a probe has no effect after a renewal: a failure of it says nothing against the renewal', () => {
    const ejected = failing();
    ejected.now = 1_000;
    const probe = ejected.begin();
    ejected.health.allowProbe(1_000);
    expect(probe.fail()).toBeUndefined();
    expect(ejected.health.dueAt).toBe(1_000);
    expect(ejected.begin().probe).toBeDefined();
  });
});

describe('a probe', () => {
  it('a probe is one at a time: no other call is a probe until it has ended', () => {
    const ejected = failing();
    ejected.now = 1_000;
    const probe = ejected.begin();
    expect(ejected.health.mayProbe(1_000, true)).toBe(false);
    expect(ejected.begin().probe).toBeUndefined();
    probe.cancel();
    expect(ejected.begin().probe).toBeDefined();
  });

  it('a probe keeps others out for half a minute, and no longer if it never ends', () => {
    const ejected = failing();
    ejected.now = 1_000;
    ejected.begin();
    expect(ejected.due()).toEqual([30_000, 30_000]);
    ejected.now = 31_000;
    const second = ejected.begin();
    expect(second.probe).toBeDefined();
    expect(second.fail()).toBe(2_000);
    ejected.now = 33_000;
    ejected.begin();
    expect(ejected.due()).toEqual([30_000, 30_000]);
  });

  it('a probe that ends too late makes no room for a third while the second is under way', () => {
    const ejected = failing();
    ejected.now = 1_000;
    const first = ejected.begin();
    ejected.now = 31_000;
    const second = ejected.begin();
    first.cancel();
    expect(ejected.begin().probe).toBeUndefined();
    second.cancel();
    expect(ejected.begin().probe).toBeDefined();
  });

  it('a probe that fails ejects again, and its successor is outdated', () => {
    const ejected = failing();
    ejected.now = 1_000;
    const first = ejected.begin();
    ejected.now = 2_000;
    const second = ejected.begin();
    expect(first.fail()).toBe(2_000);
    expect(second.outdated).toBe(true);
    expect(second.fail()).toBeUndefined();
    expect(ejected.health.dueAt).toBe(4_000);
  });
});

describe('the time of an ejection', () => {
  /** The times of as many ejections, each but the first by the probe. */
  const times = (ejected: Patient, count: number, first: () => number | undefined) => {
    const waits = [first()];
    while (waits.length < count) {
      ejected.now = ejected.health.dueAt;
      waits.push(ejected.fail());
    }
    return waits;
  };

  it('the time of an ejection is a second for failures in a row, doubled by each failed probe up to ten', () => {
    expect(times(patient, 7, () => patient.fail(5))).toEqual([
      1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000,
    ]);
    expect(patient.health.ejections).toBe(7);
  });

  it('the time of an ejection is 30 seconds by comparison, and as much longer each time, up to 300', () => {
    const waits = [];
    for (let ejection = 0; ejection < 12; ejection++) {
      waits.push(patient.eject());
      patient.now = patient.health.dueAt;
      patient.succeed();
    }
    const grown = Array.from({ length: 10 }, (_, index) => 30_000 * (index + 1));
    expect(waits).toEqual([...grown, 300_000, 300_000]);
  });

  it('the time of an ejection is as the options say for both kinds of rules', () => {
    const options = { baseEjectionTime: 100, maxEjectionTime: 350 };
    const down = new Patient(readOutlierDetectionOptions(options));
    expect(times(down, 4, () => down.fail(5))).toEqual([100, 200, 350, 350]);
    const worse = new Patient(readOutlierDetectionOptions(options));
    expect(times(worse, 5, () => worse.eject())).toEqual([100, 200, 300, 350, 350]);
  });

  it('the time of an ejection is counted anew where another kind of rule ejects', () => {
    patient.eject();
    patient.now = 30_000;
    patient.succeed();
    expect(patient.fail(5)).toBe(1_000);
    patient.now += 1_000;
    patient.succeed();
    expect(patient.eject()).toBe(30_000);
  });

  it('the time of an ejection lies within a tenth above its due, so that clients do not probe in step, and never above the maximum', () => {
    const waits = [0, 0.25, 0.5, 0.75, 0.999].map((chance) => new Patient(defaults, () => chance).fail(5));
    expect(waits[0]).toBe(1_000);
    expect(waits[2]).toBeCloseTo(1_050);
    expect(waits[4]).toBeCloseTo(1_099.9);
    const late = new Patient(readOutlierDetectionOptions({ maxEjectionTime: 1_000 }), () => 0.999);
    expect(times(late, 3, () => late.fail(5))).toEqual([1_000, 1_000, 1_000]);
  });

  it('the time of an ejection shrinks by one ejection with each interval that the instance is well, and not while it is not', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.nat(60_000), (before, well) => {
        const flapping = new Patient();
        times(flapping, before, () => flapping.fail(5));
        flapping.now = flapping.health.dueAt + 60_000;
        flapping.succeed();
        flapping.now += well;
        const forgiven = Math.floor(well / 10_000);
        const left = forgiven === 0 ? before : Math.max(0, Math.min(before, 5) - forgiven);
        expect(flapping.fail(5)).toBe(Math.min(10_000, 1_000 * 2 ** left));
        expect(flapping.health.ejections).toBe(left + 1);
      }),
    );
  });

  it('the time of an ejection needs no longer to shrink after an outage of a day than after one that just reached the maximum', () => {
    times(patient, 500, () => patient.fail(5));
    patient.succeed();
    patient.now += 5 * 10_000;
    expect(patient.fail(5)).toBe(1_000);
  });
});

describe('a call that cannot be repeated', () => {
  it('a call that cannot be repeated may be the probe after half the wait again, and a second at most, if no other call was', () => {
    expect(failing().due()).toEqual([1_000, 1_500]);
    const again = failing();
    again.now = 1_000;
    again.fail();
    expect(again.due()).toEqual([2_000, 3_000]);
    again.now = 3_000;
    again.fail();
    expect(again.due()).toEqual([4_000, 5_000]);
    expect(compared().due()).toEqual([30_000, 31_000]);
  });

  it('a call that cannot be repeated may be the probe at once if the last call did not even reach the instance', () => {
    for (let failure = 0; failure < 5; failure++) patient.begin().fail(false);
    expect(patient.due()).toEqual([1_000, 1_000]);
    patient.now = 1_000;
    patient.begin().fail(true);
    expect(patient.due()).toEqual([2_000, 3_000]);
  });
});

describe('a renewal of an instance', () => {
  it('a renewal of an instance makes it due at once if it is ejected, for any call, and changes nothing otherwise', () => {
    for (const ejected of [failing(), compared()]) {
      ejected.health.allowProbe(7);
      ejected.now = 7;
      expect(ejected.due()).toEqual([0, 0]);
      expect(ejected.state).toBe('ejected');
    }
    patient.fail();
    const { generation } = patient.health;
    patient.health.allowProbe(7);
    expect([patient.state, patient.health.generation]).toEqual(['suspect', generation]);
  });

  it('a renewal of an instance lets no call probe beside a probe that is under way, and any call as soon as that has ended', () => {
    for (const end of ['succeed', 'fail', 'cancel'] as const) {
      const ejected = failing();
      ejected.now = 1_000;
      const early = ejected.begin();
      ejected.health.allowProbe(1_000);
      expect(ejected.begin().probe).toBeUndefined();
      early[end]();
      expect([ejected.state, ...ejected.due()]).toEqual(['ejected', 0, 0]);
      const late = ejected.begin();
      expect(late.probe).toBeDefined();
      expect(late.succeed()).toBe(true);
    }
  });

  it('a renewal of an instance does not shorten its next ejection if the probe fails', () => {
    const ejected = failing();
    ejected.health.allowProbe(0);
    expect(ejected.fail()).toBe(2_000);
    expect(ejected.health.failing).toBe(true);
  });
});

describe('an instance that starts anew', () => {
  it('an instance that starts anew is unknown, and its failures are forgotten', () => {
    patient.fail(4);
    patient.health.startAnew(0);
    expect(patient.state).toBe('unknown');
    expect(patient.fail(4)).toBeUndefined();
  });

  it('an instance that starts anew is due at once if it is ejected, and fails as if for the first time', () => {
    const ejected = failing();
    ejected.now = 1_000;
    ejected.fail();
    ejected.health.startAnew(1_500);
    ejected.now = 1_500;
    expect(ejected.due()).toEqual([0, 0]);
    expect(ejected.fail()).toBe(1_000);
    expect([ejected.health.failing, ejected.health.ejections]).toEqual([true, 1]);
    ejected.now = 2_500;
    expect(ejected.succeed()).toBe(true);
  });

  it('an instance that starts anew gets one probe, though a probe of the earlier process is still under way', () => {
    const ejected = failing();
    ejected.now = 1_000;
    const early = ejected.begin();
    ejected.health.startAnew(1_000);
    const late = ejected.begin();
    expect(late.probe).toBeDefined();
    expect(ejected.begin().probe).toBeUndefined();
    early.cancel();
    expect(ejected.begin().probe).toBeUndefined();
    expect(late.succeed()).toBe(true);
  });
});

interface Settings {
  consecutiveFailures: number;
  baseEjectionTime: number | undefined;
  maxEjectionTime: number | undefined;
  interval: number;
  chance: number;
}

interface ModelCall {
  epoch: number;
  probe: object | undefined;
}

/** A plain model of the health of an instance, which remembers every result of its generation. */
class Model {
  readonly settings: Settings;
  now = 0;
  epoch = 0;
  /** Since the last success, or new start. */
  failures = 0;
  anyResult = false;
  ejection: { failing: boolean; wait: number; dueAt: number; dueForAllAt: number } | undefined = undefined;
  probe: { until: number } | undefined = undefined;
  ejections: { failing: boolean }[] = [];
  returnedAt = 0;

  constructor(settings: Settings) {
    this.settings = settings;
  }

  get state(): string {
    if (this.ejection !== undefined) return 'ejected';
    if (!this.anyResult) return 'unknown';
    return this.failures === 0 || this.settings.consecutiveFailures === Infinity ? 'healthy' : 'suspect';
  }

  mayProbe(repeatable: boolean): boolean {
    if (this.ejection === undefined) return false;
    if (this.probe !== undefined) return this.now >= this.probe.until;
    return this.now >= (repeatable ? this.ejection.dueAt : this.ejection.dueForAllAt);
  }

  start(): ModelCall {
    if (!this.mayProbe(true)) return { epoch: this.epoch, probe: undefined };
    this.probe = { until: this.now + 30_000 };
    return { epoch: this.epoch, probe: this.probe };
  }

  /** Takes in a result, or that there is none; gives whether it has an effect. */
  finish(call: ModelCall, end: 'succeed' | 'fail' | 'cancel', reached: boolean): void {
    if (call.probe !== undefined && call.probe === this.probe) this.probe = undefined;
    if (end === 'cancel' || call.epoch !== this.epoch) return;
    if (end === 'succeed') this.succeed();
    else this.fail(call.probe !== undefined, reached);
  }

  succeed(): void {
    this.failures = 0;
    const { ejection } = this;
    if (ejection === undefined) {
      this.anyResult = true;
      return;
    }
    if (!ejection.failing && this.now < ejection.dueAt && this.probe === undefined) return;
    this.anyResult = true;
    this.ejection = undefined;
    this.probe = undefined;
    this.returnedAt = this.now;
    this.epoch++;
  }

  fail(probe: boolean, reached: boolean): void {
    this.failures++;
    if (this.ejection === undefined && this.settings.consecutiveFailures < Infinity) this.anyResult = true;
    if (probe || this.failures === this.settings.consecutiveFailures) this.eject(reached);
  }

  eject(reached: boolean): void {
    const { consecutiveFailures, baseEjectionTime, maxEjectionTime, interval, chance } = this.settings;
    const failing = this.ejection?.failing || this.failures >= consecutiveFailures;
    if (this.ejections.some((earlier) => earlier.failing !== failing)) this.ejections = [];
    const base = baseEjectionTime ?? (failing ? 1_000 : 30_000);
    const max = maxEjectionTime ?? (failing ? 10_000 : 300_000);
    const due = (number: number) => (failing ? base * 2 ** (number - 1) : base * number);
    if (this.ejection === undefined) {
      const forgiven = Math.floor((this.now - this.returnedAt) / interval);
      if (forgiven > 0) {
        while (this.ejections.length > 1 && due(this.ejections.length - 1) >= max) this.ejections.pop();
        this.ejections.splice(0, forgiven);
      }
    }
    this.ejections.push({ failing });
    const wait = Math.min(max, due(this.ejections.length) * (1 + chance / 10));
    const dueAt = this.now + wait;
    this.ejection = { failing, wait, dueAt, dueForAllAt: dueAt + (reached ? Math.min(1_000, wait / 2) : 0) };
    this.probe = undefined;
    this.epoch++;
  }

  news(): void {
    if (this.ejection === undefined) return;
    this.ejection = { ...this.ejection, dueAt: this.now, dueForAllAt: this.now };
    this.epoch++;
  }

  startAnew(): void {
    this.failures = 0;
    this.ejections = [];
    this.anyResult = false;
    this.probe = undefined;
    if (this.ejection === undefined) this.epoch++;
    else this.news();
  }
}

type Command =
  | { do: 'start' }
  | { do: 'compare' }
  | { do: 'news' }
  | { do: 'start anew' }
  | { do: 'succeed' | 'fail' | 'cancel'; call: number; reached: boolean }
  | { do: 'pass'; milliseconds: number };

const settings: fc.Arbitrary<Settings> = fc.record({
  consecutiveFailures: fc.constantFrom(1, 2, 3, 5, Infinity),
  baseEjectionTime: fc.constantFrom(undefined, undefined, 400, 3_000),
  maxEjectionTime: fc.constantFrom(undefined, undefined, 1_500, 6_000),
  interval: fc.constantFrom(500, 2_000, 10_000),
  chance: fc.constantFrom(0, 0.5, 0.999),
});

const ending = { call: fc.nat({ max: 7 }), reached: fc.boolean() };
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: fc.constant({ do: 'start' as const }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('succeed' as const), ...ending }) },
  { weight: 7, arbitrary: fc.record({ do: fc.constant('fail' as const), ...ending }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), ...ending }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('pass' as const),
      milliseconds: fc.oneof(fc.integer({ min: 1, max: 1_200 }), fc.integer({ min: 1, max: 40_000 })),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      { do: 'compare' as const },
      { do: 'news' as const },
      { do: 'start anew' as const },
    ),
  },
);

it('the health of an instance does what its model does, whatever calls begin and end in any order', () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(settings, fc.array(command, { maxLength: 80, size: 'max' }), (chosen, commands) => {
      const model = new Model(chosen);
      const { chance, ...options } = chosen;
      const patient = new Patient(readOutlierDetectionOptions(options), () => chance);
      const { health } = patient;
      const running: { model: ModelCall; call: Call }[] = [];
      for (const next of commands) {
        const before = health.failing ? 'failing' : model.probe ? 'probing' : model.state;
        if (next.do === 'start') {
          const began = { model: model.start(), call: patient.begin() };
          expect(began.call.probe !== undefined).toBe(began.model.probe !== undefined);
          if (began.model.probe !== undefined) seen.add('probe');
          running.push(began);
        } else if (next.do === 'pass') {
          patient.now += next.milliseconds;
          model.now += next.milliseconds;
        } else if (next.do === 'compare') {
          if (health.ejected) continue;
          model.eject(true);
          patient.eject();
        } else if (next.do === 'news') {
          model.news();
          health.allowProbe(patient.now);
        } else if (next.do === 'start anew') {
          model.startAnew();
          health.startAnew(patient.now);
        } else if (running.length > 0) {
          const [ended] = running.splice(next.call % running.length, 1);
          if (next.do === 'fail') ended!.call.fail(next.reached);
          else ended!.call[next.do]();
          model.finish(ended!.model, next.do, next.reached);
        }
        const { ejection } = model;
        expect({
          state: patient.state,
          failing: health.failing,
          ejections: health.ejections,
          dueAt: health.dueAt,
          repeatable: health.mayProbe(patient.now, true),
          other: health.mayProbe(patient.now, false),
          outdated: running.map(({ call }) => call.outdated),
        }).toEqual({
          state: model.state,
          failing: ejection?.failing ?? false,
          ejections: model.ejections.length,
          dueAt: ejection?.dueAt ?? 0,
          repeatable: model.mayProbe(true),
          other: model.mayProbe(false),
          outdated: running.map(({ model: { epoch } }) => epoch !== model.epoch),
        });
        const current = running.filter(({ call }) => call.probe !== undefined && !call.outdated);
        const held = current.filter(({ model: { probe } }) => (probe as Model['probe'])!.until > patient.now);
        expect(held.length).toBeLessThanOrEqual(1);
        seen.add(`${next.do} when ${before}`);
      }
    }),
    { numRuns: 300 },
  );
  // The runs reach every state by every kind of command.
  for (const what of ['start', 'succeed', 'fail', 'cancel', 'pass'] as const) {
    for (const state of ['unknown', 'healthy', 'suspect', 'ejected', 'failing', 'probing']) {
      expect(seen).toContain(`${what} when ${state}`);
    }
  }
  expect(seen).toContain('probe');
});
