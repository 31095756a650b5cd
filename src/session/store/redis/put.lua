-- Writes the entry ARGV[5] by the lease ARGV[4], and gives the lease back. Asked once more because
-- the answer was lost, it gives the same answer.
be_present()
if redis.call('GET', lease) ~= ARGV[4] then
  if redis.call('HGET', session, 'written_by') == ARGV[4] then return {1, revision()} end
  return {0, '0'}
end
-- By the time, so that no revision comes twice, even if the store has been emptied in between.
local revision = math.max((tonumber(revision()) or 0) + 1, now)
revision = string.format('%.0f', revision)
redis.call('HSET', session, 'revision', revision, 'sealed', ARGV[5], 'written_by', ARGV[4])
redis.call('PEXPIRE', session, kept)
redis.call('DEL', lease)
return {1, revision}
