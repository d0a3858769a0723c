import { PRELUDE, TRIM } from './event-lua.ts';
import { Script } from './redis-connection.ts';

/*
 * makeRoom gives the length of the stream, how many of `count` events there is room for, and a group
 * that keeps old events from being dropped, or false.
 * rejection gives the error with which a full Redis denies to add events; it trims then. It is to be
 * asked before the script has written anything: after that Redis denies nothing any more.
 */
const MAKE_ROOM = `${TRIM}
local function rejection(stream, state, retention)
  local reply = redis.pcall('HINCRBY', state, 'added', 0)
  if isError(reply, 'OOM') and redis.call('EXISTS', stream) == 1 then trim(stream, retention) end
  return type(reply) == 'table' and reply or nil
end

local function makeRoom(stream, count, maxLength, retention, due)
  local length, lagging = redis.call('XLEN', stream), false
  if length > 0 and (due or length + count > maxLength) then
    lagging = trim(stream, retention)
    length = redis.call('XLEN', stream)
  end
  return length, math.max(0, math.min(count, maxLength - length)), lagging
end
`;

/**
 * Adds events while there is room.
 *
 * KEYS stream, state. ARGV channel, maxLength, retention, 1 to trim, events. Gives how many of the
 * events were added, the length of the stream, how many were ever added, and the group that keeps old
 * events from being dropped, or ''.
 */
export const ADD = new Script(`${PRELUDE}${MAKE_ROOM}
local stream, state = KEYS[1], KEYS[2]
local rejected = rejection(stream, state, tonumber(ARGV[3]))
if rejected then return rejected end
local length, room, lagging = makeRoom(stream, #ARGV - 4, tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1')
if room == 0 then return { 0, length, digits(numberAt(state, 'added')), lagging or '' } end
local total = redis.call('HINCRBY', state, 'added', room)
for index = 5, 4 + room do redis.call('XADD', stream, '*', 'event', ARGV[index]) end
tell(ARGV[1])
return { room, length + room, digits(total), lagging or '' }
`);

/**
 * Adds the events of an outbox while there is room, but for those at or below the latest position.
 * Positions are strings of digits: no number of Lua holds them all.
 *
 * KEYS stream, state. ARGV channel, maxLength, retention, 1 to trim, source, the least that the
 * latest position must be, then the position and the JSON of each event. Gives how many were added,
 * the length of the stream, how many were ever added, the group that keeps old events from being
 * dropped, or '', and how many were passed over; or −1 and the latest position if that is too low.
 */
export const APPEND = new Script(`${PRELUDE}${MAKE_ROOM}
local stream, state, source = KEYS[1], KEYS[2], 'from:' .. ARGV[5]
local function isAbove(one, other)
  if #one ~= #other then return #one > #other end
  return one > other
end
local last = redis.call('HGET', state, source) or '0'
if isAbove(ARGV[6], last) then return { -1, last } end
local first = 7
while first < #ARGV and not isAbove(ARGV[first], last) do first = first + 2 end
local passed = (first - 7) / 2
local rejected = rejection(stream, state, tonumber(ARGV[3]))
if rejected then return rejected end
local count = (#ARGV - first + 1) / 2
local length, room, lagging = makeRoom(stream, count, tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1')
if room == 0 then return { 0, length, digits(numberAt(state, 'added')), lagging or '', passed } end
local total = redis.call('HINCRBY', state, 'added', room)
for index = first, first + 2 * room - 1, 2 do
  last = ARGV[index]
  redis.call('XADD', stream, '*', 'event', ARGV[index + 1])
end
redis.call('HSET', state, source, last)
tell(ARGV[1])
return { room, length + room, digits(total), lagging or '', passed }
`);

/** Gives the id of the last entry, if there is one, and how many were ever added. KEYS stream, state. */
export const FIND_END = new Script(`${PRELUDE}
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return { last and last[1] or '0-0', digits(numberAt(KEYS[2], 'added')) }
`);

/**
 * Reads for a broadcast. KEYS stream, state. ARGV the id after which to read, the most entries. Gives
 * the entries, how many were ever added, and how many of these are kept.
 */
export const READ_ON = new Script(`${PRELUDE}
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return { entries, digits(numberAt(KEYS[2], 'added')), redis.call('XLEN', KEYS[1]) }
`);

/**
 * Delivers a dead letter to its group again.
 *
 * KEYS stream, state, dead. ARGV channel, group, the id of the letter, maxLength. Gives 0 if the
 * letter is gone, −1 if the partition is full.
 */
export const REDRIVE = new Script(`${PRELUDE}
local stream, state, dead, id = KEYS[1], KEYS[2], KEYS[3], ARGV[3]
local entry = redis.call('XRANGE', dead, id, id)[1]
if not entry then return 0 end
if redis.call('XLEN', stream) >= tonumber(ARGV[4]) then return -1 end
-- Nothing is added to a full Redis: the letter moves.
writeWhenFull(state)
redis.call('HINCRBY', state, 'added', 1)
redis.call('XADD', stream, '*', 'event', named(entry[2]).event, 'to', ARGV[2])
redis.call('XDEL', dead, id)
tell(ARGV[1])
return 1
`);

/**
 * Reports on the groups of a partition. KEYS stream, state. Gives the length of the stream, and for
 * each group its name, the events that it has not handled, how many of these it was given, and the
 * id of the last entry that it was given.
 */
export const REPORT = new Script(`${PRELUDE}
local report = { redis.call('XLEN', KEYS[1]) }
if redis.call('EXISTS', KEYS[1]) == 0 then return report end
local added = numberAt(KEYS[2], 'added')
for _, reply in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(reply)
  local unread = math.max(0, added - numberAt(KEYS[2], 'delivered:' .. group.name))
  report[#report + 1] = group.name
  report[#report + 1] = unread + group.pending
  report[#report + 1] = group.pending
  report[#report + 1] = group['last-delivered-id']
end
return report
`);
