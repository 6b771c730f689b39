-- KEYS: attempt
-- ARGV: sequence
-- Applied: its answer. Otherwise it never will be: a late arrival finds its sequence spent.
local last = redis.call('GET', KEYS[1])
if last then
  local sequence, epoch, number, value = string.match(last, '^(%d+) (%S+) (%d+) (%S+)$')
  if sequence == ARGV[1] then return {'DONE', epoch, number, value} end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' never', 'EX', 3600)
return {'NEVER'}
