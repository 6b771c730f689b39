-- KEYS: state, data log gone order
-- ARGV: run_id, name, epoch, number since, how many values come along at most, and how large each may be
local state, answer = read_state(ARGV[1], '', {ARGV[2]})
if not state then return answer end
local held = state.names[1] or {number = 0, floor = 0}
local number = held.number
if ARGV[3] ~= state.epoch or tonumber(ARGV[4]) < held.floor then return {'DONE', state.epoch, number, 'RESET'} end
local after = '(' .. ARGV[4]
local changed, along = call('ZRANGEBYSCORE', KEYS[3], after, '+inf', 'WITHSCORES'), {}
if #changed <= 2 * ARGV[5] then
  for i = 1, #changed, 2 do
    if call('HSTRLEN', KEYS[2], changed[i]) <= tonumber(ARGV[6]) then
      along[#along + 1] = changed[i]
      along[#along + 1] = call('HGET', KEYS[2], changed[i])
    end
  end
end
return {'DONE', state.epoch, number, 'CHANGES', changed,
  call('ZRANGEBYSCORE', KEYS[4], after, '+inf', 'WITHSCORES'), along}
