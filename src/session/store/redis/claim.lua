-- Takes the lease as ARGV[4] for ARGV[5] ms. A lease is void when its holder is gone, or when it
-- is an earlier one of ours that nobody holds any more (ARGV[6] is '1').
be_present()
local held = redis.call('GET', lease)
if held then
  local holder = string.match(held, '^[^/]+') or ''
  local is_void
  if holder == me then
    is_void = ARGV[6] == '1'
  else
    is_void = not redis.call('ZSCORE', members, holder)
  end
  if not is_void then return {now, 0, '0', ''} end
end
redis.call('SET', lease, ARGV[4], 'PX', ARGV[5])
return {now, 1, revision(), sealed()}
