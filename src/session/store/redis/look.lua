-- The entry, unless it is still of the revision ARGV[4].
be_present()
local revision, entry = revision(), ''
if revision ~= ARGV[4] then entry = sealed() end
return {now, revision, entry, redis.call('ZCARD', members)}
