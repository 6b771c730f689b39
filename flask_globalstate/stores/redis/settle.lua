-- KEYS: state, sessions
-- ARGV: session, sequence
-- Applied: its answer. Otherwise it never will be: a late arrival finds its sequence spent. One that was
-- refused in the middle, or of a session so old that its last answer may have been cleared away: nobody knows.
local field = 'a:' .. ARGV[1]
local last = redis.call('HGET', KEYS[1], field)
local answer = 'NEVER'
if last then
  local sequence, epoch, number, value = string.match(last, '^(%d+) (%x+) (%d+) (%S+)$')
  if sequence == ARGV[2] then return {'DONE', epoch, number, value} end
  if not sequence and not string.find(last, '^%d+ never$') then answer = 'UNKNOWN' end
elseif not redis.call('LPOS', KEYS[2], ARGV[1]) and redis.call('EXISTS', KEYS[1]) == 1 then
  answer = 'UNKNOWN'
end
redis.call('HSET', KEYS[1], field, ARGV[2] .. ' never')
return {answer}
