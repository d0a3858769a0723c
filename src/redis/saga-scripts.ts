import { Script } from './redis-connection.ts';
import { PRELUDE } from './saga-lua.ts';

/**
 * ARGV: id, name, version, input, context, cancellable, lease, number of entries, these, then events.
 * Gives the token and the time; or nothing, and the saga that there is as a list.
 */
export const CREATE = new Script(`${PRELUDE}
local id, name, version, input, context = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local cancellable, lease, added = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local existing = summary(id, true)
if existing then return { false, existing } end
local number = math.max(microseconds(), (tonumber(redis.call('GET', bucket)) or 0) + 1)
-- Redis that is full rejects this, and with it all.
redis.call('SET', bucket, digits(number))
-- Redis may have lost the rest of a saga with this id.
redis.call('DEL', keyOf('entries', id), keyOf('inputs', id))
redis.call('ZREM', bucket .. ':ended', id)
redis.call('HSET', keyOf('saga', id), 'name', name, 'version', version, 'input', input, 'context', context,
  'status', 'running', 'createdAt', digits(now), 'updatedAt', digits(now), 'number', digits(number),
  'token', digits(number), 'owned', lease > 0 and 1 or 0, 'cancellable', cancellable, 'length', added, 'inputs', 0)
addEntries(id, 9, 8 + added)
setStatus(id, 'running', number)
setDue(id, { name = name, version = version }, now + lease)
keepEvents(id, 9 + added)
return { digits(number), now }
`);

/**
 * ARGV: id, token, length, inputs, status, reason or '', its step or '', cancellable, owned, dueIn or '',
 * number of entries, these, then events. Gives the result, the time, and the inputs that the owner has not taken in.
 */
export const WRITE = new Script(`${PRELUDE}
local id, token, length, inputs, status = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local reason, step, dueIn, added = ARGV[6], ARGV[7], tonumber(ARGV[10]), tonumber(ARGV[11])
local saga = readState(id)
if not saga or saga.token ~= token then return { 'lost' } end
local count = tonumber(saga.length)
if added > 0 and count == length + added then return { 'written', now } end
if saga.owned ~= '1' or count ~= length then return { 'lost' } end
if tonumber(saga.inputs) > inputs then
  return { 'inputs', now, redis.call('LRANGE', keyOf('inputs', id), inputs, -1) }
end
if added == 0 then writeWhenFull() end
addEntries(id, 12, 11 + added)
redis.call('HSET', keyOf('saga', id), 'status', status, 'cancellable', ARGV[8], 'owned', ARGV[9],
  'updatedAt', digits(now), 'length', digits(length + added), 'reason', reason, 'step', step)
if status ~= saga.status then setStatus(id, status, saga.number) end
setDue(id, saga, dueIn and now + dueIn)
if status == 'completed' or status == 'compensated' then
  redis.call('ZADD', bucket .. ':ended', digits(now), id)
end
keepEvents(id, 12 + added)
return { 'written', now }
`);

/**
 * ARGV: limit, then version and name of each definition. Gives id, version, name and time of the sagas
 * that are due, at most `limit` of each definition.
 */
export const FIND_DUE = new Script(`${PRELUDE}
local found = {}
for index = 2, #ARGV, 2 do
  local version, name = ARGV[index], ARGV[index + 1]
  local due = redis.call('ZRANGEBYSCORE', dueKey(version, name), '-inf', digits(now), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
  for place = 1, #due, 2 do found[#found + 1] = { due[place], version, name, due[place + 1] } end
end
return found
`);

/**
 * ARGV: id, version, name, lease. Gives the token, 1 for a takeover, the time, and the saga unless it is
 * damaged; nothing if it is not due any more.
 */
export const CLAIM = new Script(`${PRELUDE}
local id, version, name, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local due = dueKey(version, name)
local at = redis.call('ZSCORE', due, id)
if not at or tonumber(at) > now then return false end
writeWhenFull()
local saga = read(id, { 'name', 'version', 'token', 'owned' })
local isOther = saga and saga.name and saga.version and (saga.name ~= name or saga.version ~= version)
if not saga or not next(saga) or isOther then
  redis.call('ZREM', due, id)
  -- Nothing can be written to a key of another type.
  if not saga then setStatus(id, 'stuck', microseconds()) end
  return false
end
-- By its time a token is another one than any that Redis has given and lost.
local token = math.max((tonumber(saga.token) or 0) + 1, microseconds())
redis.call('HSET', keyOf('saga', id), 'token', digits(token), 'owned', 1)
redis.call('ZADD', due, digits(now + lease), id)
local claimed = { digits(token), saga.owned == '1' and 1 or 0, now }
-- No owner could write to a saga that has lost a part of its state.
if readState(id) then claimed[4] = whole(id) end
return claimed
`);

/**
 * ARGV: id, version, name, token, reason. Leaves a saga stuck that its owner cannot read, and mends its
 * state: an operator may have it go on.
 */
export const STICK = new Script(`${PRELUDE}
local id, version, name, token, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local saga = read(id, { 'token', 'number' })
if not saga or saga.token ~= token then return end
writeWhenFull()
local number = tonumber(saga.number) or microseconds()
redis.call('HSET', keyOf('saga', id), 'status', 'stuck', 'reason', reason, 'step', '', 'cancellable', 0,
  'owned', 0, 'name', name, 'version', version, 'updatedAt', digits(now), 'number', digits(number))
setStatus(id, 'stuck', number)
redis.call('ZREM', dueKey(version, name), id)
`);

/**
 * ARGV: lease, then id and token of each saga. Gives for each the number of its inputs, or −1 if its
 * lease is not held.
 */
export const RENEW = new Script(`${PRELUDE}
local held = {}
writeWhenFull()
for index = 2, #ARGV, 2 do
  local id, token = ARGV[index], ARGV[index + 1]
  local saga = readState(id)
  if saga and saga.token == token and saga.owned == '1' then
    setDue(id, saga, now + ARGV[1])
    held[#held + 1] = tonumber(saga.inputs)
  else
    held[#held + 1] = -1
  end
end
return held
`);

/**
 * ARGV: id, id of the input, its step or '', input, condition, number of inputs that are too many. Gives
 * what has become of it.
 */
export const SEND = new Script(`${PRELUDE}
local id, field, step, input, condition = ARGV[1], 'input:' .. ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local saga = readState(id)
if not saga then return summary(id) and 'rejected' or 'missing' end
if redis.call('HGET', keyOf('saga', id), field) then return 'known' end
local fulfilled = saga.status ~= 'completed' and saga.status ~= 'compensated'
if condition == 'stuck' then
  fulfilled = saga.status == 'stuck' and (step == '' or step == redis.call('HGET', keyOf('saga', id), 'step'))
elseif condition == 'cancellable' then fulfilled = saga.cancellable == '1' end
if not fulfilled or tonumber(saga.inputs) >= tonumber(ARGV[6]) then return 'rejected' end
redis.call('RPUSH', keyOf('inputs', id), input)
redis.call('HSET', keyOf('saga', id), field, 1, 'inputs', digits(saga.inputs + 1))
if saga.owned ~= '1' then
  local due = tonumber(redis.call('ZSCORE', dueKey(saga.version, saga.name), id) or now)
  setDue(id, saga, math.min(due, now))
end
return 'added'
`);

/** ARGV: id. Gives the saga with its journal, or nothing. */
export const READ = new Script(`${PRELUDE}
local id = ARGV[1]
return summary(id) and whole(id)
`);

/** ARGV: ids. Gives the sagas that there are, each as a list. */
export const SUMMARIZE = new Script(`${PRELUDE}
local found = {}
for _, id in ipairs(ARGV) do found[#found + 1] = summary(id) end
return found
`);

/**
 * ARGV: number, limit, name or '', dueFor or '', then statuses. Looks at `limit` sagas after that number,
 * and fewer if their inputs are large. Gives the number of the last one, '' if no more follow; then
 * those of the name that are due for that long, each as a list.
 */
export const LIST = new Script(`${PRELUDE}
local after, limit, name, dueFor = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local listed = {}
for index = 5, #ARGV do
  local key = bucket .. ':' .. ARGV[index]
  local ids = redis.call('ZRANGEBYSCORE', key, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  for place = 1, #ids, 2 do
    listed[#listed + 1] = { id = ids[place], number = ids[place + 1], status = ARGV[index] }
  end
end
table.sort(listed, function(one, other) return tonumber(one.number) < tonumber(other.number) end)
local found, size = { '' }, 0
for place, entry in ipairs(listed) do
  local saga = summary(entry.id, true)
  local status = saga and (saga[2] or 'stuck')
  local matches = status == entry.status and (name == '' or saga[3] == name)
  if matches and dueFor then matches = saga[9] and tonumber(saga[9]) <= now - dueFor end
  if matches then
    found[#found + 1] = { entry.number, saga }
    size = size + #(saga[10] or '')
  end
  if place == limit or size > 1048576 then
    found[1] = entry.number
    break
  end
end
return found
`);

/** ARGV: retention, limit. Removes sagas that have ended; gives how many. */
export const REMOVE_ENDED = new Script(`${PRELUDE}
local before = digits(now - ARGV[1])
local ids = redis.call('ZRANGEBYSCORE', bucket .. ':ended', '-inf', before, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  redis.call('DEL', keyOf('saga', id), keyOf('entries', id), keyOf('inputs', id))
  for _, status in ipairs(STATUSES) do redis.call('ZREM', bucket .. ':' .. status, id) end
  redis.call('ZREM', bucket .. ':ended', id)
end
return #ids
`);

/**
 * ARGV: token, milliseconds of the lock, limits of sagas and of events of each. Takes the lock if there
 * are events and nobody has it. Gives each saga's id and events.
 */
export const TAKE_EVENTS = new Script(`${PRELUDE}
local ids = redis.call('ZRANGE', bucket .. ':unpublished', 0, ARGV[3] - 1)
if #ids == 0 or redis.call('GET', bucket .. ':publisher') then return {} end
writeWhenFull()
redis.call('SET', bucket .. ':publisher', ARGV[1], 'PX', ARGV[2])
local taken = {}
for index, id in ipairs(ids) do
  taken[index] = { id, redis.call('LRANGE', keyOf('events', id), 0, ARGV[4] - 1) }
end
return taken
`);

/**
 * ARGV: token, then id of each saga and the number of its events that were published. Forgets these, lets
 * a saga without any be the last one to be taken again, and gives the lock back. A process that has lost
 * the lock changes nothing: what it has published is published again.
 */
export const SETTLE_EVENTS = new Script(`${PRELUDE}
if redis.call('GET', bucket .. ':publisher') ~= ARGV[1] then return end
redis.call('DEL', bucket .. ':publisher')
for index = 2, #ARGV, 2 do
  local id, count = ARGV[index], tonumber(ARGV[index + 1])
  redis.call('LTRIM', keyOf('events', id), count, -1)
  if redis.call('EXISTS', keyOf('events', id)) == 0 then redis.call('ZREM', bucket .. ':unpublished', id)
  elseif count == 0 then redis.call('ZADD', bucket .. ':unpublished', digits(now), id) end
end
`);
