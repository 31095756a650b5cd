-- Takes the TOTP step that ends at ARGV[4], of ARGV[5] seconds, and remembers it for ARGV[6] ms.
-- Used steps further ahead than one were counted by a clock that has since been put right.
local used = tonumber(redis.call('GET', step) or '0') or 0
local ends = tonumber(ARGV[4])
if used >= ends and used <= ends + tonumber(ARGV[5]) then
  return {0, string.format('%.0f', used)}
end
redis.call('SET', step, ARGV[4], 'PX', ARGV[6])
return {1, ARGV[4]}
