import { CLOCK } from './lua-clock.ts';
import { Script } from './redis-connection.ts';

/*
 * The registry of one service has these keys, in one hash slot:
 *   1 instances  hash   id → '<epoch> <ttl> <the registered fields as JSON>'
 *   2 leases     zset   id by the time of its expiry
 *   3 statuses   hash   id → the status that a health check found since the instance was registered
 *   4 meta       hash   version, longest: the longest ttl
 * Outside a cluster REGISTER takes a fifth key: the set of the names of all services. HEARTBEAT
 * takes that key after the keys of all its services.
 *
 * All times are milliseconds of Redis's clock, read within the script: the clocks of the hosts do
 * not matter. Each script removes what has expired, if Redis takes writes. Every change counts up
 * the version and is published as
 * '<version> <now> <time to the next expiry, or −1> <kind of change> <id> <…>'.
 */
const PRELUDE = `${CLOCK}
-- The largest number up to which Lua, and JavaScript, can count one by one.
local COUNTABLE = 9007199254740991

local function epochOf(record)
  local epoch = record and tonumber(string.match(record, '^(%d+) '))
  return epoch and epoch < COUNTABLE and epoch or nil
end

local function isWrongType(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end

-- Milliseconds that the keys stay after the last instance has expired, a day: all clients have seen
-- that by then.
local KEPT = 86400000
-- Milliseconds: no ttl is longer.
local MAX_TTL = 2147483647

local function nextExpiry(keys, at)
  local first = redis.call('ZRANGE', keys[2], 0, 0, 'WITHSCORES')[2]
  return first and math.max(0, first - at) or -1
end

-- The first version of all is a time, so that versions go up even if Redis lost everything in
-- between.
local function beginVersions(keys)
  local version = microseconds()
  redis.call('HSET', keys[4], 'version', digits(version))
  redis.call('PEXPIRE', keys[4], KEPT)
  return version
end

local function publish(keys, channel, at, change)
  local version = redis.call('HINCRBY', keys[4], 'version', 1)
  if version == 1 then version = beginVersions(keys) end
  local message = { digits(version), digits(at), digits(nextExpiry(keys, at)), change }
  redis.call('PUBLISH', channel, table.concat(message, ' '))
end

local function remove(keys, id)
  redis.call('HDEL', keys[3], id)
  redis.call('ZREM', keys[2], id)
  return redis.call('HDEL', keys[1], id)
end

-- Gives why Redis rejects writes, as when it is full; '' if it takes them. To be called before the
-- script has written anything: after that Redis lets the script go on.
local function rejection(keys)
  local reply = redis.pcall('ZADD', keys[2], 'XX', 0, '')
  return type(reply) == 'table' and reply.err or ''
end

-- Removes the instances that have expired. Gives why Redis rejects writes, or ''. Where it rejects
-- writes, it rejects heartbeats too, so that a missing heartbeat means nothing, and all instances
-- stay. No lease may be longer than the longest ttl: a longer one was given before the clock was
-- set back.
local function reap(keys, channel, at)
  local longest = tonumber(redis.call('HGET', keys[4], 'longest') or 0)
  local last = redis.call('ZREVRANGE', keys[2], 0, 0, 'WITHSCORES')[2]
  local tooLong = last and longest > 0 and last - at > longest
  local expired = redis.call('ZRANGEBYSCORE', keys[2], '-inf', digits(at))
  if #expired == 0 and not tooLong then return '' end
  local rejected = rejection(keys)
  if rejected ~= '' then return rejected end
  if tooLong then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys[2], '(' .. digits(at + longest), '+inf')) do
      redis.call('ZADD', keys[2], digits(at + longest), id)
    end
  end
  local known = {}
  for _, id in ipairs(expired) do
    remove(keys, id)
    -- No client believed in an id that is no name; in a list it could be taken for several ids.
    if not string.find(id, '[^%w_.:-]') then known[#known + 1] = id end
  end
  if #known > 0 then publish(keys, channel, at, 'expired ' .. table.concat(known, ',')) end
  return ''
end

local function longestOf(keys)
  local longest = 0
  for index, record in ipairs(redis.call('HGETALL', keys[1])) do
    local ttl = index % 2 == 0 and tonumber(string.match(record, '^%d+ (%d+) '))
    if ttl and ttl <= MAX_TTL then longest = math.max(longest, ttl) end
  end
  return longest
end

-- Begins a key anew that holds what no registry has written: another type, or a version or longest
-- ttl that is no number. Otherwise no instance could register before somebody deletes the key. To
-- be called before anything else. Gives the keys, or ''.
local function heal(keys, channel, at)
  local healed = {}
  for index = 1, 4 do
    local reply
    if index == 2 then reply = redis.pcall('ZRANGE', keys[2], 0, 0) else reply = redis.pcall('HGET', keys[index], '') end
    if isWrongType(reply) then
      redis.call('PEXPIRE', keys[index], 0)
      healed[#healed + 1] = keys[index]
    end
  end
  local anew = healed[#healed] == keys[4]
  for name, most in pairs({ version = COUNTABLE - 1, longest = MAX_TTL }) do
    local value = redis.call('HGET', keys[4], name)
    if value and not (string.find(value, '^%d+$') and tonumber(value) <= most) then
      redis.call('HDEL', keys[4], name)
      if healed[#healed] ~= keys[4] then healed[#healed + 1] = keys[4] end
      anew = true
    end
  end
  if #healed == 0 then return '' end
  if anew then
    if not redis.call('HGET', keys[4], 'version') then beginVersions(keys) end
    if not redis.call('HGET', keys[4], 'longest') then
      redis.call('HSET', keys[4], 'longest', digits(longestOf(keys)))
    end
  end
  publish(keys, channel, at, 'healed')
  return table.concat(healed, ' ')
end

-- Has the keys of a service that nobody touches any more go by themselves, all at once: were the
-- version to stay, a client could not tell that the instances have gone.
local function keep(keys, ttl, anew)
  local longest = tonumber(redis.call('HGET', keys[4], 'longest') or 0)
  if longest == 0 and not redis.call('HGET', keys[4], 'version') then beginVersions(keys) end
  if ttl > longest then
    longest = ttl
    redis.call('HSET', keys[4], 'longest', digits(longest))
  end
  if anew or redis.call('PTTL', keys[4]) < longest + KEPT / 2 then
    for index = 1, 4 do redis.call('PEXPIRE', keys[index], digits(longest + KEPT)) end
  end
end
`;

/**
 * ARGV: channel, id, epoch ('' at the first registration), ttl, JSON, name of the service. Gives
 * the epoch, or −1 if a later one has the id; and the keys that were begun anew, or ''.
 */
export const REGISTER = new Script(`${PRELUDE}
local channel, id, given, ttl, json = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local at = now()
local healed = heal(KEYS, channel, at)
reap(KEYS, channel, at)
local before = redis.call('HGET', KEYS[1], id)
local epoch = epochOf(before)
if given and epoch and epoch > given then return { '-1', healed } end
if not given then
  given = math.max(microseconds(), (epoch or 0) + 1)
end
local record = digits(given) .. ' ' .. digits(ttl) .. ' ' .. json
redis.call('HSET', KEYS[1], id, record)
redis.call('ZADD', KEYS[2], digits(at + ttl), id)
if epoch ~= given then redis.call('HDEL', KEYS[3], id) end
if record ~= before then publish(KEYS, channel, at, 'registered ' .. id .. ' ' .. record) end
keep(KEYS, ttl, true)
if KEYS[5] and isWrongType(redis.pcall('SADD', KEYS[5], ARGV[6])) then
  redis.call('PEXPIRE', KEYS[5], 0)
  redis.call('SADD', KEYS[5], ARGV[6])
  healed = healed == '' and KEYS[5] or healed .. ' ' .. KEYS[5]
end
return { digits(given), healed }
`);

/**
 * Keeps instances of several services alive at once, with four keys for each. ARGV: the number of
 * services; for each of them channel, ttl, number of instances, then id and epoch of each; then the
 * names of the services, if the key for them was given. Gives for each instance 1 if it is kept
 * alive, 0 if it is not known, −1 if a later epoch has the id; then for each service the keys that
 * were begun anew, or ''.
 *
 * A full Redis takes heartbeats, since they need no memory: without them all instances would have
 * expired when there is room again. A script may go on in a full Redis once it has written what
 * Redis takes even then, such as a removal.
 */
export const HEARTBEAT = new Script(`${PRELUDE}
local at = now()
local healed = {}
local services, position = tonumber(ARGV[1]), 2
for service = 1, services do
  local first = 4 * service - 3
  local keys = { KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3] }
  healed[service] = heal(keys, ARGV[position], at)
  position = position + 3 + 2 * tonumber(ARGV[position + 2])
end
position = 2
local full = rejection(KEYS) ~= ''
if full then redis.call('HDEL', KEYS[3], '') end
local results = {}
for first = 1, 4 * services, 4 do
  local keys = { KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3] }
  local channel, ttl, count = ARGV[position], tonumber(ARGV[position + 1]), tonumber(ARGV[position + 2])
  position = position + 3
  local lost = false
  for _ = 1, count do
    local id, given = ARGV[position], tonumber(ARGV[position + 1])
    position = position + 2
    local record = redis.call('HGET', keys[1], id)
    local epoch = epochOf(record)
    local known = epoch == given
    -- An instance that had no lease was in no list any more.
    if known and redis.call('ZADD', keys[2], digits(at + ttl), id) == 1 then
      lost = true
      redis.call('HDEL', keys[3], id)
      publish(keys, channel, at, 'registered ' .. id .. ' ' .. record)
    end
    results[#results + 1] = known and 1 or (epoch and epoch > given and -1 or 0)
  end
  if not full then reap(keys, channel, at) end
  keep(keys, ttl, lost)
end
-- Redis may have lost the names. No instance may expire because something is wrong with them.
local names = KEYS[4 * services + 1]
for first = position, names and #ARGV or 0, 1000 do
  local batch = { unpack(ARGV, first, math.min(#ARGV, first + 999)) }
  if isWrongType(redis.pcall('SADD', names, unpack(batch))) then
    redis.pcall('PEXPIRE', names, 0)
    redis.pcall('SADD', names, unpack(batch))
  end
end
for service = 1, services do results[#results + 1] = healed[service] end
return results
`);

/**
 * ARGV: channel, id, epoch ('' for any). Gives 1 if the instance was there. The departure of an
 * instance that Redis forgot is published all the same: some clients still have it.
 */
export const DEREGISTER = new Script(`${PRELUDE}
local channel, id, given = ARGV[1], ARGV[2], tonumber(ARGV[3])
local at = now()
local epoch = epochOf(redis.call('HGET', KEYS[1], id))
if given and epoch and epoch > given then return 0 end
local rejected = rejection(KEYS)
local known = remove(KEYS, id)
if known == 1 or given then publish(KEYS, channel, at, 'deregistered ' .. id) end
if rejected == '' then reap(KEYS, channel, at) end
return known
`);

/** ARGV: channel, id, status. Gives 1 if the instance is there. */
export const SET_STATUS = new Script(`${PRELUDE}
local channel, id, status = ARGV[1], ARGV[2], ARGV[3]
local at = now()
reap(KEYS, channel, at)
if not redis.call('HGET', KEYS[1], id) then return 0 end
if redis.call('HGET', KEYS[3], id) ~= status then
  redis.call('HSET', KEYS[3], id, status)
  -- The statuses go with the instances if nobody touches them any more.
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then redis.call('PEXPIRE', KEYS[3], left) end
  publish(KEYS, channel, at, 'status ' .. id .. ' ' .. status)
end
return 1
`);

const READ_PRELUDE = `${PRELUDE}
local channel, ask = ARGV[1], ARGV[2] == '1'
local at = now()
local rejected = reap(KEYS, channel, at)
if rejected == '' and ask then rejected = rejection(KEYS) end
`;

/**
 * ARGV: channel, 1 to ask whether Redis takes writes although nothing has expired. Gives the
 * version, the time, the time to the next expiry, and why Redis rejects writes, or ''. It reads
 * also where Redis rejects writes.
 */
export const TOUCH = new Script(`${READ_PRELUDE}
return { redis.call('HGET', KEYS[4], 'version') or '0', digits(at), digits(nextExpiry(KEYS, at)), rejected }
`);

/**
 * ARGV: like those of TOUCH. Gives what TOUCH gives, then all instances, statuses and leases, as
 * flat lists.
 */
export const READ = new Script(`${READ_PRELUDE}
return {
  redis.call('HGET', KEYS[4], 'version') or '0', digits(at), digits(nextExpiry(KEYS, at)), rejected,
  redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[3]),
  redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'),
}
`);

/** KEYS: the lock. ARGV: holder, milliseconds. Gives 1 if the holder has the lock. */
export const ACQUIRE_LOCK = new Script(`
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`);

/** KEYS: the lock. ARGV: holder. */
export const RELEASE_LOCK = new Script(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
`);
