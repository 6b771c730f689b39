-- KEYS: state, names, attempt, data log gone order
-- ARGV: run_id, sequence, name, key, amount
local state = read_state(KEYS[1], ARGV[1])
if not state then return {'EPOCH'} end
local sequence = tonumber(ARGV[2])
if is_spent(KEYS[3], sequence) then return {'SPENT'} end

local entry = redis.call('HGET', KEYS[4], ARGV[4])
local digits = entry and string.match(entry, '^........(%-?%d+)i$') or '0'
if entry and not string.match(entry, '^........%-?%d+i$') then return {'NOT INTEGER'} end
-- A Lua number is exact up to 2^53, which has 16 digits.
if #digits > 15 or #ARGV[5] > 15 then return {'TOO LARGE'} end
local value = text(tonumber(digits) + tonumber(ARGV[5]))

local created = state.created
state.number = redis.call('HINCRBY', KEYS[1], 'number', 1)
put(KEYS, 4, state, ARGV[4], value .. 'i')
local held = read_name(KEYS[2], ARGV[3]) or {floor = 0}
held.number, held.live = state.number, 1
write_name(KEYS[2], ARGV[3], held)
if state.created ~= created then redis.call('HSET', KEYS[1], 'created', text(state.created)) end
answer_attempt(KEYS[3], sequence, state.epoch, state.number, value)
return {'DONE', state.epoch, text(state.number), value}
