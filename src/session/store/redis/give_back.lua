-- Gives the lease ARGV[4] back.
if redis.call('GET', lease) ~= ARGV[4] then return 0 end
return redis.call('DEL', lease)
