-- KEYS: state, log, gone
-- ARGV: run_id, name, epoch, number since
local state = read_state(ARGV[1], '', {ARGV[2]})
if not state then return {'EPOCH'} end
local held = state.names[1] or {number = 0, floor = 0}
local number = held.number
if ARGV[3] ~= state.epoch or tonumber(ARGV[4]) < held.floor then return {'DONE', state.epoch, number, 'RESET'} end
local after = '(' .. ARGV[4]
return {'DONE', state.epoch, number, 'CHANGES',
  call('ZRANGEBYSCORE', KEYS[2], after, '+inf', 'WITHSCORES'),
  call('ZRANGEBYSCORE', KEYS[3], after, '+inf', 'WITHSCORES')}
