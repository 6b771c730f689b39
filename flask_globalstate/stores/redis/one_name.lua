-- What put.lua and increment.lua begin with: the same as prelude.lua, for one name and in fewer calls,
-- since these two are run most.
-- KEYS: state, data log gone order, sessions
-- ARGV: run_id, session, sequence, name, ...
local call, pack = redis.call, struct.pack
local attempt, name, counts = 'a:' .. ARGV[2], 'n:' .. ARGV[4], 'c:' .. ARGV[4]
local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'number', 'created', attempt, name, counts)
local epoch, last, found_name, found_counts = held[1], held[5], held[6], held[7]
if held[2] ~= ARGV[1] or not string.find(epoch or '', '^%x+$')
    or not string.find((held[3] or '') .. ' ' .. (held[4] or ''), '^%d+ %d+$')
    or #held[3] > 14 or #held[4] > 14 then
  return {'EPOCH'}
end
if last then
  local sequence = string.match(last, '^%d+')
  if not sequence or tonumber(sequence) >= tonumber(ARGV[3]) then return {'SPENT'} end
end

-- Nothing is written before it is known that all keys are of their types, and whole.
local size, gone = call('HLEN', KEYS[2]), 0
if size ~= call('ZCARD', KEYS[3]) or size ~= call('ZCARD', KEYS[5]) then return {'TORN', 1} end
if found_name then
  if #found_name ~= 17 then return {'TORN', 1} end
  if found_counts and string.sub(found_counts, 1, 8) == string.sub(found_name, 1, 8) then
    local known
    known, gone = struct.unpack('>I8I8', found_counts, 9)
    if known ~= size then return {'TORN', 1} end
  else
    gone = call('ZCARD', KEYS[4])
  end
elseif size > 0 then
  return {'TORN', 1}
end
local is_listed = last or call('LPOS', KEYS[6], ARGV[2])

local number = string.format('%.0f', held[3] + 1)
local packed = pack('>I8', number)
local floor = found_name and string.sub(found_name, 9, 16) or '\0\0\0\0\0\0\0\0'
local fields = {'number', number, name, packed .. floor .. '\1', attempt}

-- Write the fields, then the rest. If the state may be written and something else not, the state is made to
-- say so: then whoever comes next begins an epoch, and nobody reads of a half.
local function write(value, rest)
  fields[6] = ARGV[3] .. ' ' .. epoch .. ' ' .. number .. ' ' .. value
  call('HSET', KEYS[1], unpack(fields))
  local done, problem = pcall(rest)
  if done then return {'DONE', epoch, number, value} end
  call('HSET', KEYS[1], attempt, ARGV[3] .. ' half', 'run_id', '')
  return {'HALF', type(problem) == 'table' and problem.err or tostring(problem)}
end
