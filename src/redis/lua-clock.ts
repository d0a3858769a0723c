/** Redis's clock in Lua, and a way to write its times: Lua gives large numbers exponents. */
export const CLOCK = `
local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now()
  return math.floor(microseconds() / 1000)
end

local function digits(number)
  return string.format('%.0f', number)
end
`;
