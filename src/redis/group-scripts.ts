import { PRELUDE, TRIM } from './event-lua.ts';
import { Script } from './redis-connection.ts';

const CREATE = `
-- Gives whether the group was created, or an error.
local function createGroup(stream, state, group, from)
  writeWhenFull(state)
  local reply = redis.pcall('XGROUP', 'CREATE', stream, group, from == 'now' and '$' or '0', 'MKSTREAM')
  if isError(reply, 'BUSYGROUP') then return 0 end
  if reply.err then return reply end
  local added = numberAt(state, 'added')
  local delivered = from == 'now' and added or math.max(0, added - redis.call('XLEN', stream))
  redis.call('HSET', state, 'delivered:' .. group, digits(delivered))
  return 1
end
`;

/** KEYS stream, state. ARGV group, start or now. Gives 1 if the group is new. */
export const CREATE_GROUP = new Script(`${PRELUDE}${CREATE}
return createGroup(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
`);

/**
 * Takes the lease of a group in a partition if it is free or has run out. Creates the group again
 * if Redis has lost it.
 *
 * KEYS stream, state, lease. ARGV group, owner, milliseconds. Gives the token and 1 if nobody died
 * with the lease; or, if another owner has it, '' and the milliseconds until it runs out; then 1 if
 * the group was created.
 */
export const ACQUIRE = new Script(`${PRELUDE}${CREATE}
local stream, state, lease, owner = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
writeWhenFull(lease)
local at = now()
local expiry = numberAt(lease, 'until')
-- No lease lasts longer than it was given for: the clock was set back.
local longest = at + numberAt(lease, 'duration')
if expiry > longest then
  expiry = longest
  redis.call('HSET', lease, 'until', digits(expiry))
end
if expiry > at and redis.call('HGET', lease, 'owner') ~= owner then return { '', expiry - at, 0 } end
local created = createGroup(stream, state, ARGV[1], 'start')
if type(created) == 'table' then return created end
-- A token is a time, so that tokens go up even if Redis has lost the one before.
local token = digits(math.max(numberAt(lease, 'token') + 1, microseconds()))
redis.call('HSET', lease, 'owner', owner, 'token', token, 'duration', ARGV[3])
redis.call('HSET', lease, 'until', digits(at + tonumber(ARGV[3])))
redis.call('HDEL', lease, 'given')
return { token, expiry == 0 and 1 or 0, created }
`);

/**
 * KEYS stream, lease. ARGV group, token, milliseconds, retention. Gives nil if the token is old; else
 * the id of the first entry that the group was given and that is not done, '' for none.
 */
export const RENEW = new Script(`${PRELUDE}${TRIM}
if not owns(KEYS[2], ARGV[2]) then return false end
writeWhenFull(KEYS[2])
redis.call('HSET', KEYS[2], 'until', digits(now() + tonumber(ARGV[3])))
if redis.call('EXISTS', KEYS[1]) == 1 then trim(KEYS[1], tonumber(ARGV[4])) end
-- A group that is gone is noticed by a read.
return redis.pcall('XPENDING', KEYS[1], ARGV[1])[2] or ''
`);

/**
 * Gives a lease back: its token is old from then on, so that no renewal that comes late extends it.
 * KEYS lease. ARGV token, the channel of the members.
 */
export const RELEASE = new Script(`${PRELUDE}
if not owns(KEYS[1], ARGV[1]) then return 0 end
writeWhenFull(KEYS[1])
redis.call('HINCRBY', KEYS[1], 'token', 1)
redis.call('HSET', KEYS[1], 'until', '0')
tell(ARGV[2])
return 1
`);

/** KEYS lease. Gives the owner and the milliseconds until the lease runs out; nil if it has. */
export const READ_LEASE = new Script(`${PRELUDE}
local left = math.min(numberAt(KEYS[1], 'until') - now(), numberAt(KEYS[1], 'duration'))
if left <= 0 then return false end
return { redis.call('HGET', KEYS[1], 'owner'), left }
`);

/**
 * Reads the next events of a group. It ends early when it has some MiB of them.
 *
 * The owner tells the last entry that it has, and the lease keeps the last one that was given. If
 * these differ, entries were given to an owner before, or in a reply that was lost: then those that
 * are not done come first. So no read takes an event away, however late Redis executes it.
 *
 * KEYS stream, state, lease, attempts. ARGV group, token, count, the id of the last entry. Gives nil
 * if the token is old, or the group is gone; else 1 if the events were given before; 1 if there are
 * no more of these, or no more at all; the ids of the events, joined by spaces, and their JSON,
 * joined by newlines, since one string costs less than hundreds; the ids and groups of those that
 * are for one group; and the ids and attempts of those that have failed before.
 */
export const READ = new Script(`${PRELUDE}
local CHUNK, MAX_SIZE = 50, 4194304
local stream, state, lease, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, count, last = ARGV[1], tonumber(ARGV[3]), ARGV[4]
if not owns(lease, ARGV[2]) then return false end
local given = redis.call('HGET', lease, 'given')
local isNew = given == last
local after = isNew and '>' or last
local ids, events, groups, states = {}, {}, {}, {}
local size, read, exhausted = 0, 0, false
local function addPair(list, id, value)
  list[#list + 1] = id
  list[#list + 1] = value
end
local haveFailed = not isNew and redis.call('EXISTS', attempts) == 1
repeat
  local most = math.min(CHUNK, count - read)
  local reply = redis.pcall('XREADGROUP', 'GROUP', group, 'owner', 'COUNT', most, 'STREAMS', stream, after)
  if isError(reply, 'NOGROUP') then return false end
  if reply and reply.err then return reply end
  local entries = reply and reply[1][2] or {}
  for index = 1, #entries do
    local id, fields = entries[index][1], entries[index][2]
    if not isNew then after = id end
    local event = fields and fields[2]
    if fields and (#fields > 2 or fields[1] ~= 'event') then
      local entry = named(fields)
      event = entry.event or ''
      if entry.to then addPair(groups, id, entry.to) end
    end
    if event then
      -- JSON that has a newline is not of this package, and would look like two events.
      if string.find(event, '\\n', 1, true) then event = '' end
      size = size + #event
      last = id
      ids[#ids + 1] = id
      events[#ids] = event
      local found = haveFailed and redis.call('HGET', attempts, id)
      if found then addPair(states, id, found) end
    else
      -- Somebody has deleted the entry.
      redis.call('XACK', stream, group, id)
    end
  end
  read = read + #entries
  exhausted = #entries < most
until exhausted or read == count or size >= MAX_SIZE
if last ~= given and (isNew or exhausted) then redis.call('HSET', lease, 'given', last) end
if isNew and exhausted then
  redis.call('HSET', state, 'delivered:' .. group, redis.call('HGET', state, 'added') or '0')
elseif isNew then
  redis.call('HINCRBY', state, 'delivered:' .. group, read)
end
return { isNew and 0 or 1, exhausted and 1 or 0, table.concat(ids, ' '), table.concat(events, '\\n'), groups, states }
`);

/**
 * Writes what became of events.
 *
 * KEYS stream, lease, attempts, dead. ARGV group, token, the ids of the events that are done, joined
 * by spaces; the number of those with further attempts, the ids and attempts of these, then the ids
 * and attempts of those that are dead. Gives 0 if the token is old.
 */
export const SETTLE = new Script(`${PRELUDE}
local stream, lease, attempts, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group = ARGV[1]
if not owns(lease, ARGV[2]) then return 0 end
writeWhenFull(attempts)
local done = {}
for id in string.gmatch(ARGV[3], '%S+') do done[#done + 1] = id end
local haveFailed = redis.call('EXISTS', attempts) == 1
-- The stack of Lua has room for some thousands of arguments.
for first = 1, #done, 1000 do
  local last = math.min(first + 999, #done)
  redis.call('XACK', stream, group, unpack(done, first, last))
  if haveFailed then redis.call('HDEL', attempts, unpack(done, first, last)) end
end
local saved = 4 + 2 * tonumber(ARGV[4])
for index = 5, saved, 2 do redis.call('HSET', attempts, ARGV[index], ARGV[index + 1]) end
for index = saved + 1, #ARGV, 2 do
  local id = ARGV[index]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  -- A batch that is written again after an outage buries nothing twice.
  if redis.call('XACK', stream, group, id) == 1 and entry then
    redis.call('XADD', dead, '*', 'event', named(entry[2]).event or '', 'state', ARGV[index + 1])
  end
  redis.call('HDEL', attempts, id)
end
return 1
`);

/** KEYS stream, state, lease, attempts, dead. ARGV group. Gives 1 if there was the group. */
export const REMOVE_GROUP = new Script(`${PRELUDE}
writeWhenFull(KEYS[2])
local reply = redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
local known = redis.call('HDEL', KEYS[2], 'delivered:' .. ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4], KEYS[5])
return math.max(type(reply) == 'number' and reply or 0, known)
`);

/** How long the members of a group are kept after the last of them has gone: a day. */
const KEPT = 86_400_000;

/** Notes that a member is there. KEYS members. ARGV member, milliseconds. Gives all members. */
export const JOIN = new Script(`${PRELUDE}
local at = now()
local expiry = at + tonumber(ARGV[2])
local gone = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', digits(at))
-- A member that would be there for much longer has come before the clock was set back.
local longest = at + 10 * tonumber(ARGV[2])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. digits(longest), '+inf')) do
  redis.call('ZADD', KEYS[1], digits(expiry), member)
end
local new = redis.call('ZADD', KEYS[1], digits(expiry), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ${KEPT})
if gone + new > 0 then tell(KEYS[1]) end
return redis.call('ZRANGE', KEYS[1], 0, -1)
`);

/** KEYS members. ARGV member. */
export const LEAVE = new Script(`${PRELUDE}
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then tell(KEYS[1]) end
`);

/** KEYS members. Gives how many members there are. */
export const COUNT_MEMBERS = new Script(`${PRELUDE}
return redis.call('ZCOUNT', KEYS[1], '(' .. digits(now()), '+inf')
`);
