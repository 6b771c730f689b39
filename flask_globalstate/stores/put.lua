-- KEYS: state, data log gone order, sessions
-- ARGV: run_id, session, sequence, name, epoch that revisions are of or '',
--       then key, value, expected ('' for any, 'absent' or a revision) of each write
-- The most common commit: sets of one name, no key twice. What commit.lua would do, in fewer calls.
local call, pack = redis.call, struct.pack
local attempt, name = 'a:' .. ARGV[2], 'n:' .. ARGV[4]
local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'number', 'created', attempt, name)
local epoch, last, found_name = held[1], held[5], held[6]
if not epoch or held[2] ~= ARGV[1] then return {'EPOCH'} end
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[3]) then return {'SPENT'} end

for a = 8, #ARGV, 3 do
  local expected = ARGV[a]
  if expected ~= '' then
    local entry = call('HGET', KEYS[2], ARGV[a - 2])
    local found = entry and struct.unpack('>I8', entry) or 'absent'
    if found ~= (tonumber(expected) or expected) or not (expected == 'absent' or ARGV[5] == epoch) then
      return {'CONFLICT', 1, ARGV[a - 2], found, 1}
    end
  end
end

local number = string.format('%.0f', held[3] + 1)
local packed = pack('>I8', number)
local fields = {'number', number, attempt, ARGV[3] .. ' ' .. epoch .. ' ' .. number .. ' -',
                name, packed .. (found_name and string.sub(found_name, 9, 16) or '\0\0\0\0\0\0\0\0') .. '\1'}
if #ARGV == 8 then
  if call('HSET', KEYS[2], ARGV[6], packed .. ARGV[7]) == 1 then
    fields[7], fields[8] = 'created', held[4] + 1
    call('ZADD', KEYS[5], fields[8], ARGV[6])
  end
  call('ZADD', KEYS[3], number, ARGV[6])
else
  local created = tonumber(held[4])
  for start = 6, #ARGV, 3 * 1000 / 2 do
    local data, log, order, n = {}, {}, {}, 0
    for a = start, math.min(start + 3 * 1000 / 2, #ARGV) - 1, 3 do
      created = created + 1
      data[n + 1], data[n + 2] = ARGV[a], packed .. ARGV[a + 1]
      log[n + 1], log[n + 2] = number, ARGV[a]
      order[n + 1], order[n + 2] = created, ARGV[a]
      n = n + 2
    end
    -- Keys that were there keep their place.
    if call('HSET', KEYS[2], unpack(data)) > 0 then
      call('ZADD', KEYS[5], 'NX', unpack(order))
      fields[7], fields[8] = 'created', created
    end
    call('ZADD', KEYS[3], unpack(log))
  end
end
if not last and not call('LPOS', KEYS[6], ARGV[2]) then
  call('RPUSH', KEYS[6], ARGV[2])
end
call('HSET', KEYS[1], unpack(fields))
return {'DONE', epoch, number}
