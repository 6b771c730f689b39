-- KEYS: state, data log gone order
-- ARGV: run_id, name, a new epoch
-- What is kept of a name disagrees: the server has evicted some of it, or somebody has removed it by hand.
-- What is left of the data counts, in a new epoch, so that every worker reads it anew.
local state, answer = read_state(ARGV[1], '', {ARGV[2]})
if state or answer[1] == 'EPOCH' then return answer or {'DONE'} end
local function in_parts(command, key, list)
  for start = 1, #list, PART do
    call(command, key, unpack(list, start, math.min(start + PART - 1, #list)))
  end
end

local held = call('HMGET', KEYS[1], 'number', 'created', 'n:' .. ARGV[2])
local time = call('TIME')
local number = math.max(held[1] + 1, time[1] * 1000 + math.floor(time[2] / 1000))
local created, live = tonumber(held[2]), string.sub(held[3] or '', 17, 17)
call('HSET', KEYS[1], 'epoch', ARGV[3], 'number', number)

local keys, is_there = call('HKEYS', KEYS[2]), {}
for _, key in ipairs(keys) do is_there[key] = true end
local lost = {}
for _, key in ipairs(call('ZRANGE', KEYS[5], 0, -1)) do
  if not is_there[key] then lost[#lost + 1] = key end
end
in_parts('ZREM', KEYS[5], lost)
call('DEL', KEYS[3], KEYS[4])
for _, key in ipairs(keys) do
  created = created + 1
  call('ZADD', KEYS[5], 'NX', created, key)
  call('ZADD', KEYS[3], number, key)
end
if #keys > 0 or live ~= '\0' then live = '\1' end
call('HSET', KEYS[1], 'created', created, 'n:' .. ARGV[2], pack('>I8I8', number, number) .. live,
  'c:' .. ARGV[2], pack(COUNTS, number, #keys, 0))
return {'DONE'}
