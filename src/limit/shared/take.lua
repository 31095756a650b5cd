-- A quota as a leaky bucket (GCRA): gives requests back, then takes as many as there are of those
-- that are wanted, or none if there are fewer than are needed.
--
-- KEYS[1]: the quota. `ahead` is how far it is ahead of its rate, in ns: 0 is full, `all` is used up.
-- `at` is when that was so, and `full` when it was last full, both in us by the clock of Redis.
local interval, all = tonumber(ARGV[1]), tonumber(ARGV[1]) * tonumber(ARGV[2])
local needed, wanted = tonumber(ARGV[3]), tonumber(ARGV[4])
local returned, since = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', KEYS[1], 'at', 'ahead', 'full')
local at, ahead, full = tonumber(state[1]), tonumber(state[2]), tonumber(state[3])

-- A clock that was put back gives nothing.
local passed = math.max(now - (at or now), 0) * 1000
if not (at and ahead and full) or passed >= ahead then
  ahead, full = 0, now
else
  ahead = math.min(ahead - passed, all)
end
-- What was taken before the quota was last full has come back by itself.
if full <= since then ahead = math.max(ahead - returned * interval, 0) end
local taken, free = 0, math.floor((all - ahead) / interval)
if free >= needed then taken = math.min(free, wanted) end
ahead = ahead + taken * interval

if ahead > 0 then
  local text = function(number) return string.format('%.0f', number) end
  redis.call('HSET', KEYS[1], 'at', text(now), 'ahead', text(ahead), 'full', text(full))
  redis.call('PEXPIRE', KEYS[1], text(math.ceil(ahead / 1000000) + 1000))
else
  redis.call('DEL', KEYS[1])
end
return {taken, ahead, now}
