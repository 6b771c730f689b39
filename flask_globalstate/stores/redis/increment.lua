-- ARGV: ..., key, amount
local entry = call('HGET', KEYS[2], ARGV[5])
local digits = '0'
if entry then digits = string.match(entry, '^........(%-?%d+)i$') end
if not digits then return {'NOT INTEGER'} end
-- A Lua number is exact up to 2^53, which has 16 digits.
if #digits > 15 or #ARGV[6] > 15 then return {'TOO LARGE'} end
local value = string.format('%.0f', digits + ARGV[6])

fields[7], fields[8] = counts, packed .. pack('>I8I8', entry and size or size + 1, gone)
if not entry then fields[9], fields[10] = 'created', held[4] + 1 end
return write(value, function()
  call('HSET', KEYS[2], ARGV[5], packed .. value .. 'i')
  if not entry then call('ZADD', KEYS[5], fields[10], ARGV[5]) end
  call('ZADD', KEYS[3], number, ARGV[5])
  if not is_listed then call('RPUSH', KEYS[6], ARGV[2]) end
end)
