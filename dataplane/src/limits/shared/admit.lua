-- Decides for one call: room in all of its counts, or nothing is taken from any.
--
-- The same sliding window as in window.rs, which is the reference. A count is one string: the newest bucket that time has reached,
-- when the count began, then what was counted in 34 buckets, oldest first. The last of them lies one after the newest: leased tokens are
-- counted there, because they may be spent one bucket later than they were taken.
--
-- KEYS: one per count and window. ARGV: five numbers for each of them: limit, length in seconds, cost, how many tokens to lease
-- beside it, and what was admitted without being counted here. Answers five numbers for each: how much was used before, microseconds
-- until the cost fits (0: it does), microseconds until something is free again, tokens leased, and when the count began (0: there is
-- none). All costs are counted if all waits are 0. What was admitted already is counted in any case. Whoever finds that a count began
-- anew while it still knows of something that counts knows that this was lost.

local KEPT = 33 -- a period of the window's length touches one bucket more than the 32 that it is cut into
local PLACES = KEPT + 1
local FORMAT = '<dd' .. string.rep('I4', PLACES)
local SIZE = struct.size(FORMAT)
local MOST = 4294967295 -- that a place holds

local function load(key, bucket, now)
  local count = {newest = bucket, born = now, places = {}, sum = 0}
  local packed = redis.call('GET', key)
  local stored = {}
  if packed and #packed == SIZE then
    stored = {struct.unpack(FORMAT, packed)}
    stored[PLACES + 3] = nil -- where the reading ended
    count.known = stored[1]
    count.born = stored[2]
    count.newest = math.max(count.known, bucket) -- a clock that went back stays where it was
  end
  local passed = count.newest - (count.known or bucket)
  for place = 1, PLACES do
    local counted = stored[2 + place + passed] or 0
    count.places[place] = counted
    count.sum = count.sum + counted
  end
  return count
end

local function add(count, place, amount)
  local counted = math.min(count.places[place] + amount, MOST)
  count.sum = count.sum + counted - count.places[place]
  count.places[place] = counted
end

local function standing(count, ask, now)
  local fits_below, left = math.max(ask.limit - ask.cost, 0), count.sum
  local wait, reset = 0, 0
  for place = 1, PLACES do
    local counted = count.places[place]
    if counted > 0 then
      local gone_in = math.max((count.newest + place) * ask.length - now, 1)
      if reset == 0 then reset = gone_in end
      if left <= fits_below then break end
      left = left - counted
      wait = gone_in
    end
  end
  if ask.cost > ask.limit then wait = math.max(wait, ask.length * KEPT) end -- never: as long as it can be said
  return wait, reset
end

local function save(key, count, ask, now, linger)
  local packed = struct.pack(FORMAT, count.newest, count.born, unpack(count.places))
  local gone_in = (count.newest + PLACES) * ask.length - now
  redis.call('SET', key, packed, 'PX', math.ceil(gone_in / 1000) + linger)
end

-- now: microseconds. linger: how many milliseconds longer than needed a count is kept.
local function admit(now, keys, args, linger)
  local asks, counts, answer, fits = {}, {}, {}, true
  for number, key in ipairs(keys) do
    local at = 5 * number - 4
    local ask = {limit = tonumber(args[at]), length = args[at + 1] * 31250, cost = tonumber(args[at + 2])}
    ask.wish, ask.owed = tonumber(args[at + 3]), tonumber(args[at + 4])
    local count = load(key, math.floor(now / ask.length), now)
    add(count, KEPT, ask.owed)
    local wait, reset = standing(count, ask, now)
    fits = fits and wait == 0
    asks[number], counts[number] = ask, count
    local said = 5 * number - 5
    answer[said + 1], answer[said + 2], answer[said + 3], answer[said + 4] = count.sum, wait, reset, 0
  end
  for number, key in ipairs(keys) do
    local ask, count = asks[number], counts[number]
    local moved = count.known and count.newest ~= count.known -- known: there is something to keep
    if fits then
      add(count, KEPT, ask.cost)
      local leased = math.min(ask.wish, math.max(ask.limit - count.sum, 0))
      add(count, PLACES, leased)
      answer[5 * number - 1] = leased
    end
    local kept = moved or ask.owed > 0 or fits
    if kept then save(key, count, ask, now, linger) end
    answer[5 * number] = (kept or count.known) and count.born or 0
  end
  return answer
end
