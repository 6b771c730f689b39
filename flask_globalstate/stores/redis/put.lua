-- ARGV: ..., epoch that revisions are of or '', then key, value, expected ('' for any, 'absent' or a
--       revision) of each write
-- The most common commit: sets of one name, no key twice. What commit.lua would do, in fewer calls.
for a = 8, #ARGV, 3 do
  local expected = ARGV[a]
  if expected ~= '' then
    local entry = call('HGET', KEYS[2], ARGV[a - 2])
    local found = entry and (#entry < 8 and 0 or struct.unpack('>I8', entry)) or 'absent'
    if found ~= (tonumber(expected) or expected) or not (expected == 'absent' or ARGV[5] == epoch) then
      return {'CONFLICT', 1, ARGV[a - 2], found, 1}
    end
  end
end

if #ARGV == 8 then
  local is_new = call('HEXISTS', KEYS[2], ARGV[6]) == 0
  fields[7], fields[8] = counts, packed .. pack('>I8I8', is_new and size + 1 or size, gone)
  if is_new then fields[9], fields[10] = 'created', held[4] + 1 end
  return write('-', function()
    call('HSET', KEYS[2], ARGV[6], packed .. ARGV[7])
    if is_new then call('ZADD', KEYS[5], fields[10], ARGV[6]) end
    call('ZADD', KEYS[3], number, ARGV[6])
    if not is_listed then call('RPUSH', KEYS[6], ARGV[2]) end
  end)
end

local created = tonumber(held[4])
fields[7], fields[8] = 'created', created + (#ARGV - 5) / 3
return write('-', function()
  for start = 6, #ARGV, 3 * 1000 / 2 do
    local data, log, order, n = {}, {}, {}, 0
    for a = start, math.min(start + 3 * 1000 / 2, #ARGV) - 1, 3 do
      created = created + 1
      data[n + 1], data[n + 2] = ARGV[a], packed .. ARGV[a + 1]
      log[n + 1], log[n + 2] = number, ARGV[a]
      order[n + 1], order[n + 2] = created, ARGV[a]
      n = n + 2
    end
    local added = call('HSET', KEYS[2], unpack(data))
    size = size + added
    -- Keys that were there keep their place.
    if added > 0 then call('ZADD', KEYS[5], 'NX', unpack(order)) end
    call('ZADD', KEYS[3], unpack(log))
  end
  if not is_listed then call('RPUSH', KEYS[6], ARGV[2]) end
  call('HSET', KEYS[1], counts, packed .. pack('>I8I8', size, gone))
end)
