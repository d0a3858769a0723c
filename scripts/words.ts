/** The language of the repository, for check-words.ts. docs/glossary.md says why, and what each word means. */

/** A word that is not used in identifiers, as a part of a camelCase name or alone. */
export interface RetiredWord {
  readonly word: RegExp;
  readonly use: string;
  /** Files in which the word means something else. */
  readonly except?: RegExp;
}

/** A phrase that is not used in comments, messages, docs and titles of tests. */
export interface RetiredPhrase {
  readonly phrase: RegExp;
  readonly use: string;
  /** Longer phrases that are allowed to contain it. */
  readonly allowed?: RegExp;
  /** Files in which the phrase means something else. */
  readonly except?: RegExp;
}

/** Names resolve to answers in the protocol of DNS. */
const DNS = /dns/i;

export const RETIRED_WORDS: readonly RetiredWord[] = [
  { word: /^answer(s|ed|ing)?$/, use: 'response', except: DNS },
  { word: /^refus(e|es|ed|al|als|ing)$/, use: 'reject, rejection', except: DNS },
  { word: /^tr(ies|ied)$/, use: 'attempts, attempted' },
  { word: /^eras?$/, use: 'generation' },
  { word: /^warmth$/, use: 'slowStartFactor' },
  { word: /^tenures?$/, use: 'lock' },
  { word: /^conduct$/, use: 'stats' },
  { word: /^surroundings$/, use: 'Environment' },
  { word: /^foreign$/, use: 'External' },
  { word: /^vain$/, use: 'a name that says what did not succeed' },
];

/** Names that are gone. Each came from a metaphor, a relative clause, or stood for two things. */
export const RETIRED_NAMES: ReadonlySet<string> = new Set([
  // balancing
  ...['StandingOrder', 'standingOrder', 'takesPart', 'wholeWeightOf', 'NEXT_TO_NOTHING', 'MAX_PASSED'],
  ...['TurnOrder', 'whileHealthLasts', 'usedAmong', 'weightedAmong', 'healthyAmong', 'outliersAmong'],
  ...['lessSuccessful', 'pointOf', 'safely', 'dealt', 'UsualLatency', 'usualLatency'],
  ...['Conduct', 'Judged', 'Member', 'Fleet', 'FleetRules', 'FleetObserver', 'Selections', 'LoadOrder'],
  // discovery, redis
  ...[
    'HealthJudge',
    'FollowedService',
    'ServiceView',
    'Leases',
    'RedisLeases',
    'hearsAgain',
    'hearsNothing',
    'believable',
    'forgetful',
    'leadsToMember',
  ],
  ...['takeCareOf', 'withoutArguments', 'clientInUse'],
  // client
  ...['goesBy', 'goesOn', 'handOn', 'stands', 'Place', 'JudgedAnswer', 'leaveEarly', 'endAtStart', 'worthIt'],
  ...['mayGoBetter', 'OBEYED', 'RelayedCall', 'RelayedExchange', 'RelayedCalls', 'FetchedHead'],
  // policies
  ...['tellsNothing', 'asReceived', 'retriesSpentSoFar', 'takeOff'],
  // middleware, cli, internal
  ...['clientGone', 'Hold', 'HoldHost', 'carryOut', 'having', 'anything', 'PATIENCE', 'LINGER', 'CAUTION'],
]);

const SINGULAR =
  'a|an|each|every|another|one|this|first|second|third|last|latest|next|earlier|later|single|per';
const PLURAL = 'two|three|ten|more|all|several|many|few|such|these|those|\\d+';
const EITHER = 'the|no|any|other|further|its|their|own|of';

export const RETIRED_PHRASES: readonly RetiredPhrase[] = [
  {
    phrase: /\banswer(s|ed|ing)?\b/gi,
    use: 'response, respond',
    allowed: /[^.]*\b(DNS|resolvers?|nameservers?)\b[^.]*/g,
    except: DNS,
  },
  {
    phrase: /\brefus(e|es|ed|al|als|ing)\b/gi,
    use: 'reject, rejection',
    allowed:
      /\b(connections?|connect)\b[^.,;:]{0,40}\brefus\w+|\brefus\w+ (a |the |its |all |new )?connections?\b|`refused`/gi,
    except: DNS,
  },
  {
    phrase: new RegExp(`\\b(((${SINGULAR}|${EITHER}) try)|((${PLURAL}|${EITHER}) tries))\\b`, 'gi'),
    use: 'attempt',
    allowed: /\btry [`'{]/g,
  },
  { phrase: /\btr(y|ies|ied|ying) (\w+ ){0,2}again\b/gi, use: 'retry, retried' },
  { phrase: /\bin vain\b/gi, use: 'without success' },
  { phrase: /\beras?\b/gi, use: 'generation' },
  { phrase: /\bwarmth\b/gi, use: 'slow start factor' },
  { phrase: /\btenures?\b/gi, use: 'lock' },
  { phrase: /\bas a rule\b/gi, use: 'by default, usually' },
  { phrase: /\bwho(ever)? asks?\b/gi, use: 'the caller' },
  { phrase: /\bof those that there are\b/gi, use: 'a sentence that names them' },
  { phrase: /\b(It is it that|be it|Whether or not it)\b/g, use: 'a sentence with a subject' },
  {
    phrase: /\b(after|at|by|for|of|takes?|than|to|within) so many\b/gi,
    use: 'a number, or the name of the option that says how many',
  },
  { phrase: /\bhas Node \w+/g, use: 'makes Node …' },
];

/** No doc comment begins with a relative clause: it begins with a verb, or with the name of the thing. */
export const RETIRED_BEGINNING = /^(What|Those|Whoever|Who|Whatever)\b/;
