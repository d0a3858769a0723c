import { CLOCK } from './lua-clock.ts';

/*
 * Sagas are spread over buckets, by the hash of their ids. A bucket has these keys, in one hash slot;
 * <bucket> is `<prefix>:sagas:{sagas:<number>}`:
 *   <bucket>                       string  the number of its latest saga: microseconds of its creation,
 *                                          and more than the number before
 *   <bucket>:<status>              zset    ids of the sagas in this status by their numbers, to list them
 *   <bucket>:due:<version>:<name>  zset    ids by the time from which on each saga may be claimed
 *   <bucket>:ended                 zset    ids by the time at which each saga has ended
 *   <bucket>:saga:<id>             hash    name, version, input, context; status, reason and its step,
 *                                          createdAt, updatedAt, number; token, owned, cancellable; length
 *                                          and inputs, which count these; `input:<its id>` for each input
 *   <bucket>:entries:<id>          list    '<at> <entry as JSON>'
 *   <bucket>:inputs:<id>           list    inputs as JSON
 *   <bucket>:events:<id>           list    events to publish, as JSON; they outlive their saga
 *   <bucket>:unpublished           zset    ids of sagas with such events, by the latest time at which one
 *                                          was first kept, or publishing was last without success
 *   <bucket>:publisher             string  token of the process that publishes; expires
 *
 * All scripts take the name of the bucket as their only key, and ARGV[1] is the id where one saga is
 * meant. The names of the other keys follow from what is kept in the saga: whoever writes to it does not
 * know them. They are in the slot of the first.
 *
 * Each write is conditional on the token, and checked before anything is written. All times are
 * milliseconds of Redis's clock. The scripts read no JSON, as Lua cannot read all that JavaScript writes:
 * half a surrogate pair, for one. They need Redis 6.2, or Valkey.
 */
export const PRELUDE = `${CLOCK}
local bucket = KEYS[1]
local STATE = { 'token', 'owned', 'cancellable', 'status', 'name', 'version', 'number', 'length', 'inputs' }
local STATUSES = { 'running', 'compensating', 'completed', 'compensated', 'stuck' }

-- While a cluster moves the slot, some of its keys may be at another node. There is no such key as the
-- second one, so both nodes reject this then, and with it the script, before it has read anything.
redis.call('EXISTS', bucket, bucket .. ':none')

-- A script is one moment.
local now = now()

local function keyOf(kind, id)
  return bucket .. ':' .. kind .. ':' .. id
end

-- Gives the reply; nil if the key is of another type than it should be.
local function orWrongType(reply)
  if not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err) end
end

-- Gives fields of a saga by their names: none if there is no such saga, nil if its key holds no saga.
local function read(id, names)
  local values = orWrongType(redis.pcall('HMGET', keyOf('saga', id), unpack(names)))
  if not values then return nil end
  local saga = {}
  for index, name in ipairs(names) do saga[name] = values[index] or nil end
  return saga
end

-- Gives what a write has to know of a saga; nil if there is none, or somebody has damaged it.
local function readState(id)
  local saga = read(id, STATE)
  if not saga then return nil end
  for _, name in ipairs(STATE) do
    if not saga[name] then return nil end
  end
  return tonumber(saga.number) and tonumber(saga.length) and tonumber(saga.inputs) and saga or nil
end

local function dueKey(version, name)
  return bucket .. ':due:' .. version .. ':' .. name
end

local function setDue(id, saga, at)
  local key = dueKey(saga.version, saga.name)
  if at then redis.call('ZADD', key, digits(at), id) else redis.call('ZREM', key, id) end
end

local function setStatus(id, status, number)
  for _, other in ipairs(STATUSES) do redis.call('ZREM', bucket .. ':' .. other, id) end
  redis.call('ZADD', bucket .. ':' .. status, digits(number), id)
end

-- Has the rest of the script written although Redis is full: it goes on once a script has written what
-- Redis takes even then. For what needs no memory.
local function writeWhenFull()
  redis.call('DEL', bucket .. ':none')
end

local function addEntries(id, first, last)
  local entries = {}
  for index = first, last do entries[#entries + 1] = digits(now) .. ' ' .. ARGV[index] end
  if #entries > 0 then redis.call('RPUSH', keyOf('entries', id), unpack(entries)) end
end

local function keepEvents(id, first)
  if first > #ARGV then return end
  for index = first, #ARGV do redis.call('RPUSH', keyOf('events', id), ARGV[index]) end
  redis.call('ZADD', bucket .. ':unpublished', 'NX', digits(now), id)
end

-- Gives a saga as a list; only its id if its key holds no saga, nil if there is none. Its input may be large.
local function summary(id, withInput)
  local names = { 'status', 'name', 'version', 'reason', 'createdAt', 'updatedAt', 'number' }
  local saga = read(id, names)
  if not saga then return { id } end
  if not next(saga) then return nil end
  local list = { id }
  for index, name in ipairs(names) do list[index + 1] = saga[name] or false end
  local due = saga.name and saga.version and redis.call('ZSCORE', dueKey(saga.version, saga.name), id)
  list[#list + 1] = due or false
  if withInput then list[#list + 1] = read(id, { 'input' }).input or false end
  return list
end

-- Gives a saga as a list, with its journal.
local function whole(id)
  local lists = {}
  for index, kind in ipairs({ 'entries', 'inputs' }) do
    lists[index] = orWrongType(redis.pcall('LRANGE', keyOf(kind, id), 0, -1)) or false
  end
  local rest = read(id, { 'context', 'length', 'inputs' }) or {}
  local counts = { rest.length or false, rest.inputs or false }
  return { summary(id, true), rest.context or false, counts, lists[1], lists[2] }
end
`;
