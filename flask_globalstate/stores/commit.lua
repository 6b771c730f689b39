-- KEYS: state, then data log gone order of each name, sessions
-- ARGV: run_id, session, sequence, epoch that revisions are of or '', removals kept, number of names,
--       then name and condition ('', 'absent' or a revision) of each name,
--       then "name-index operation expected", key, value of each write
--       operations: s set, d delete, c check, x drop the name; expected: any, absent or a revision
local kept, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local names = {}
for i = 1, count do names[i] = ARGV[5 + 2 * i] end
local state = read_state(ARGV[1], ARGV[2], names)
if not state then return {'EPOCH'} end
local sequence = tonumber(ARGV[3])
if is_spent(state, sequence) then return {'SPENT'} end

local same_epoch = ARGV[4] == '' or ARGV[4] == state.epoch
for i = 1, count do
  local condition = ARGV[6 + 2 * i]
  if condition ~= '' then
    local found = state.names[i] and state.names[i].number
    local holds
    if condition == 'absent' then holds = not found else holds = same_epoch and tonumber(condition) == (found or 0) end
    if not holds then return {'CONFLICT', i, '', found or 'absent', 0} end
  end
end

local writing, todo = false, {}
for a = 7 + 2 * count, #ARGV, 3 do
  local index, operation, expected = string.match(ARGV[a], '^(%d+) (%a) (%w+)$')
  local first = 4 * tonumber(index) - 2
  if operation ~= 'c' then writing = true end
  todo[#todo + 1] = {tonumber(index), operation, first, a}
  if expected ~= 'any' then
    local entry = call('HGET', KEYS[first], ARGV[a + 1])
    local found = entry and unpack_struct('>I8', entry) or 'absent'
    if found ~= (tonumber(expected) or expected) or not (expected == 'absent' or same_epoch) then
      return {'CONFLICT', tonumber(index), ARGV[a + 1], found, 1}
    end
  end
end
if not writing then return {'DONE', state.epoch, state.number} end

state.number = state.number + 1
local shrunk = {}
for _, write in ipairs(todo) do
  local index, operation, first, a = write[1], write[2], write[3], write[4]
  if operation == 's' then
    touch(state, index, names[index], 1)
    put(state, first, ARGV[a + 1], ARGV[a + 2])
  elseif operation == 'd' then
    touch(state, index, names[index], 1)
    if call('HDEL', KEYS[first], ARGV[a + 1]) == 1 then
      call('ZREM', KEYS[first + 1], ARGV[a + 1])
      call('ZADD', KEYS[first + 2], state.number, ARGV[a + 1])
      call('ZREM', KEYS[first + 3], ARGV[a + 1])
      shrunk[index] = first + 2
    end
  elseif operation == 'x' then
    call('DEL', KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3])
    touch(state, index, names[index], 0).floor = state.number
  end
end
for index, gone in pairs(shrunk) do
  local excess = call('ZCARD', KEYS[gone]) - kept
  if excess > 0 then
    local last = call('ZRANGE', KEYS[gone], excess - 1, excess - 1, 'WITHSCORES')
    state.names[index].floor = tonumber(last[2])
    call('ZREMRANGEBYRANK', KEYS[gone], 0, excess - 1)
  end
end
write_state(state, sequence, '-')
return {'DONE', state.epoch, state.number}
