import { CLOCK } from './lua-clock.ts';

/*
 * A partition of a topic has these keys, in one hash slot:
 *   stream    stream  one entry for each event: `event`, its JSON; `to`, the group of a redriven one
 *   state     hash    added: events ever added; delivered:<group>: events ever given to the group;
 *                     from:<source>: the latest position that was added from an outbox
 *   lease     hash    of a group: owner, token, duration, until (0 once it was released); given: the
 *                     id of the last entry that was given to the owner
 *   attempts  hash    of a group: id of an entry → how far the attempts to handle it are, as JSON
 *   dead      stream  of a group: `event`, the JSON of an event that it gave up; `state`, its attempts
 * In a slot of the topic, for each group:
 *   members   zset    id of a subscription by the time at which it counts as gone
 *
 * The groups are consumer groups of Redis, named `<group>/<pattern>`. All their reads name one
 * consumer, `owner`, and all their reads and acknowledgements are scripts that check the fencing
 * token of the lease first: an owner that has lost its lease can neither take nor acknowledge an
 * event, however late its command arrives. So nothing has to be claimed from consumers that died,
 * and no consumer that has events is ever deleted.
 *
 * The lag of a group is added − delivered + pending. All times are milliseconds of Redis's clock.
 * The scripts need Redis 6.2, or Valkey.
 */
export const PRELUDE = `${CLOCK}
local function numberAt(key, field)
  return tonumber(redis.call('HGET', key, field) or 0) or 0
end

local function isError(reply, code)
  return type(reply) == 'table' and reply.err and string.find(reply.err, code, 1, true) ~= nil
end

-- Lets this script write in a full Redis too. Only the first command of a script that writes is denied
-- there, if it may need memory: a removal is not, whether there is the field or not.
local function writeWhenFull(hash)
  redis.call('HDEL', hash, '')
end

local function owns(lease, token)
  return redis.call('HGET', lease, 'token') == token
end

-- A channel that is denied costs speed and no event: the readers look from time to time.
local function tell(channel)
  redis.pcall('PUBLISH', channel, '')
end

local function named(reply)
  local fields = {}
  for index = 1, #reply, 2 do fields[reply[index]] = reply[index + 1] end
  return fields
end
`;

export const TRIM = `
local function isBefore(one, other)
  local time, count = string.match(one, '^(%d+)-(%d+)$')
  local otherTime, otherCount = string.match(other, '^(%d+)-(%d+)$')
  if time ~= otherTime then return tonumber(time) < tonumber(otherTime) end
  return tonumber(count) < tonumber(otherCount)
end

-- Drops what every group has handled and is older than the retention. Gives the group that keeps
-- something which is older; false if there is none.
local function trim(stream, retention)
  local oldest = digits(math.max(0, now() - retention)) .. '-0'
  local limit, lagging = oldest, false
  for _, reply in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = named(reply)
    local handled = group['last-delivered-id']
    if group.pending > 0 then handled = redis.call('XPENDING', stream, group.name)[2] end
    if isBefore(handled, limit) then limit, lagging = handled, group.name end
  end
  redis.call('XTRIM', stream, 'MINID', limit)
  -- The first entry may be the last one that the group has handled.
  local kept = redis.call('XRANGE', stream, '-', '+', 'COUNT', 2)
  return #kept > 0 and isBefore(kept[#kept][1], oldest) and lagging
end
`;
