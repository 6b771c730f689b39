-- KEYS: state, names, attempt, then data log gone order of each name
-- ARGV: run_id, sequence, epoch that revisions are of or '', removals kept, number of names,
--       then name and condition ('', 'absent' or a revision) of each name,
--       then "name-index operation expected", key, value of each write
--       operations: s set, d delete, c check, x drop the name; expected: any, absent or a revision
local state = read_state(KEYS[1], ARGV[1])
if not state then return {'EPOCH'} end
local sequence = tonumber(ARGV[2])
if is_spent(KEYS[3], sequence) then return {'SPENT'} end

local kept, count = tonumber(ARGV[4]), tonumber(ARGV[5])
local same_epoch = ARGV[3] == '' or ARGV[3] == state.epoch
local held, first = {}, {}
for i = 1, count do
  local name, condition = ARGV[4 + 2 * i], ARGV[5 + 2 * i]
  held[i], first[i] = read_name(KEYS[2], name), 4 * i
  local found = held[i] and text(held[i].number) or 'absent'
  if condition == 'absent' then
    if held[i] then return {'CONFLICT', i, '', found, 0} end
  elseif condition ~= '' and not (same_epoch and condition == (held[i] and found or '0')) then
    return {'CONFLICT', i, '', found, 0}
  end
end

local start, writing = 6 + 2 * count, false
local todo = {}
for a = start, #ARGV, 3 do
  local index, operation, expected = string.match(ARGV[a], '^(%d+) (%a) (%w+)$')
  index = tonumber(index)
  writing = writing or operation ~= 'c'
  todo[#todo + 1] = {index, operation, a}
  if expected ~= 'any' then
    local entry = redis.call('HGET', KEYS[first[index]], ARGV[a + 1])
    local found = entry and text((struct.unpack('>I8', entry))) or 'absent'
    if found ~= expected or not (expected == 'absent' or same_epoch) then
      return {'CONFLICT', index, ARGV[a + 1], found, 1}
    end
  end
end
if not writing then return {'DONE', state.epoch, text(state.number)} end

state.number = redis.call('HINCRBY', KEYS[1], 'number', 1)
local created = state.created
local touched = {}
for _, write in ipairs(todo) do
  local index, operation, a = write[1], write[2], write[3]
  local f = first[index]
  if operation ~= 'c' then
    touched[index] = true
    held[index] = held[index] or {floor = 0}
    held[index].number, held[index].live = state.number, 1
  end
  if operation == 's' then
    put(KEYS, f, state, ARGV[a + 1], ARGV[a + 2])
  elseif operation == 'd' then
    if redis.call('HDEL', KEYS[f], ARGV[a + 1]) == 1 then
      redis.call('ZREM', KEYS[f + 1], ARGV[a + 1])
      redis.call('ZADD', KEYS[f + 2], text(state.number), ARGV[a + 1])
      redis.call('ZREM', KEYS[f + 3], ARGV[a + 1])
    end
  elseif operation == 'x' then
    redis.call('DEL', KEYS[f], KEYS[f + 1], KEYS[f + 2], KEYS[f + 3])
    held[index].floor, held[index].live = state.number, 0
  end
end
for index in pairs(touched) do
  local gone = KEYS[first[index] + 2]
  local excess = redis.call('ZCARD', gone) - kept
  if excess > 0 then
    local last = redis.call('ZRANGE', gone, excess - 1, excess - 1, 'WITHSCORES')
    held[index].floor = tonumber(last[2])
    redis.call('ZREMRANGEBYRANK', gone, 0, excess - 1)
  end
  write_name(KEYS[2], ARGV[4 + 2 * index], held[index])
end
if state.created ~= created then redis.call('HSET', KEYS[1], 'created', text(state.created)) end
answer_attempt(KEYS[3], sequence, state.epoch, state.number, '-')
return {'DONE', state.epoch, text(state.number)}
