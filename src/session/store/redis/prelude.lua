-- Begins every script: what it is about, what time it is, and who is present.
local session, lease, members, step = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, gone, kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget_gone_members()
  redis.call('ZREMRANGEBYSCORE', members, '-inf', '(' .. string.format('%.0f', now - gone))
end

local function be_present()
  redis.call('ZADD', members, now, me)
  forget_gone_members()
  redis.call('PEXPIRE', members, kept)
  redis.call('PEXPIRE', session, kept)
end

local function revision()
  return redis.call('HGET', session, 'revision') or '0'
end

-- What is too large is not ours, and is nothing to whoever asks.
local function sealed()
  if redis.call('HSTRLEN', session, 'sealed') > 262144 then return '' end
  return redis.call('HGET', session, 'sealed') or ''
end
