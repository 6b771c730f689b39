-- KEYS: state, data log gone order, sessions
-- ARGV: run_id, session, sequence, name, key, amount
local state = read_state(ARGV[1], ARGV[2], {ARGV[4]})
if not state then return {'EPOCH'} end
local sequence = tonumber(ARGV[3])
if is_spent(state, sequence) then return {'SPENT'} end

local entry = call('HGET', KEYS[2], ARGV[5])
local digits = '0'
if entry then digits = string.match(entry, '^........(%-?%d+)i$') end
if not digits then return {'NOT INTEGER'} end
-- A Lua number is exact up to 2^53, which has 16 digits.
if #digits > 15 or #ARGV[6] > 15 then return {'TOO LARGE'} end
local value = string.format('%.0f', tonumber(digits) + tonumber(ARGV[6]))

state.number = state.number + 1
put(state, 2, ARGV[5], value .. 'i')
touch(state, 1, ARGV[4], 1)
write_state(state, sequence, value)
return {'DONE', state.epoch, state.number, value}
