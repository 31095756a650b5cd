-- Keeps the lease ARGV[4] for another ARGV[5] ms.
be_present()
if redis.call('GET', lease) ~= ARGV[4] then return 0 end
return redis.call('PEXPIRE', lease, ARGV[5])
