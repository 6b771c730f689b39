-- KEYS: state, data log gone order, sessions
-- ARGV: run_id, session, sequence, name, key, amount
local call, pack = redis.call, struct.pack
local attempt, name = 'a:' .. ARGV[2], 'n:' .. ARGV[4]
local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'number', 'created', attempt, name)
local epoch, last, found_name = held[1], held[5], held[6]
if not epoch or held[2] ~= ARGV[1] then return {'EPOCH'} end
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[3]) then return {'SPENT'} end

local entry = call('HGET', KEYS[2], ARGV[5])
local digits = '0'
if entry then digits = string.match(entry, '^........(%-?%d+)i$') end
if not digits then return {'NOT INTEGER'} end
-- A Lua number is exact up to 2^53, which has 16 digits.
if #digits > 15 or #ARGV[6] > 15 then return {'TOO LARGE'} end
local value = string.format('%.0f', digits + ARGV[6])

local number = string.format('%.0f', held[3] + 1)
local packed = pack('>I8', number)
local fields = {'number', number, attempt, ARGV[3] .. ' ' .. epoch .. ' ' .. number .. ' ' .. value,
                name, packed .. (found_name and string.sub(found_name, 9, 16) or '\0\0\0\0\0\0\0\0') .. '\1'}
call('HSET', KEYS[2], ARGV[5], packed .. value .. 'i')
if not entry then
  fields[7], fields[8] = 'created', held[4] + 1
  call('ZADD', KEYS[5], fields[8], ARGV[5])
end
call('ZADD', KEYS[3], number, ARGV[5])
if not last and not call('LPOS', KEYS[6], ARGV[2]) then
  call('RPUSH', KEYS[6], ARGV[2])
end
call('HSET', KEYS[1], unpack(fields))
return {'DONE', epoch, number, value}
