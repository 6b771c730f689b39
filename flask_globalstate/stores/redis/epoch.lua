-- KEYS: state, sessions, a key that never exists
-- ARGV: run_id, a new epoch, session, sessions kept, the newest format that is known
-- After a restart that lost data, or a failover, numbers would be given out twice: another run_id of
-- the server, or data without an epoch, begins a new epoch.
local call = redis.call
-- Whoever may not run all of this is refused here, and not in the middle of a commit.
call('ZADD', KEYS[3], 'XX', 0, '')
call('ZREM', KEYS[3], '')
call('ZREMRANGEBYRANK', KEYS[3], 0, 0)
call('HDEL', KEYS[3], '')
call('DEL', KEYS[3])

local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'number', 'created', 'format')
-- A state that was begun before there were numbers is of the first format, and stays so.
local format = held[5] or held[1] and '1' or ARGV[5]
if not string.find(format, '^%d+$') or tonumber(format) > tonumber(ARGV[5]) then return {'FORMAT', format} end
local is_number = {}
for i = 3, 4 do is_number[i] = string.find(held[i] or '', '^%d+$') and #held[i] <= 14 end
if held[2] ~= ARGV[1] or not string.find(held[1] or '', '^%x+$') or not is_number[3] or not is_number[4] then
  -- Greater than any number that was given out, also if the data that says so is lost.
  local time = call('TIME')
  local number = math.max((is_number[3] and held[3] or 0) + 1, time[1] * 1000 + math.floor(time[2] / 1000))
  call('HSET', KEYS[1], 'run_id', ARGV[1], 'epoch', ARGV[2], 'number', string.format('%.0f', number),
    'created', is_number[4] and held[4] or string.format('%.0f', number), 'format', format)
end
if not call('LPOS', KEYS[2], ARGV[3]) then
  call('RPUSH', KEYS[2], ARGV[3])
end
for _ = 1, call('LLEN', KEYS[2]) - tonumber(ARGV[4]) do
  call('HDEL', KEYS[1], 'a:' .. call('LPOP', KEYS[2]))
end
return {'DONE'}
