-- Leaves; the last one takes the entry along. Otherwise, how long ago another was here, in ms.
redis.call('ZREM', members, me)
forget_gone_members()
local last = redis.call('ZREVRANGE', members, 0, 0, 'WITHSCORES')
if last[1] then return {now, 0, math.max(now - tonumber(last[2]), 0), ''} end
local entry = sealed()
redis.call('DEL', session)
return {now, 1, 0, entry}
