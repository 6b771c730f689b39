-- KEYS: state, then data log gone order of each name, sessions
-- ARGV: run_id, session, sequence, epoch that revisions are of or '', removals kept, number of names,
--       then name and condition ('', 'absent' or a revision) of each name,
--       then "name-index operation expected", key, value of each write
--       operations: s set, d delete, c check, x drop the name; expected: any, absent or a revision
local kept, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local names = {}
for i = 1, count do names[i] = ARGV[5 + 2 * i] end
local state, answer = read_state(ARGV[1], ARGV[2], names)
if not state then return answer end
-- An attempt that was settled as never applied must not be applied when it arrives late.
if state.last then
  local sequence = string.match(state.last, '^%d+')
  if not sequence or tonumber(sequence) >= tonumber(ARGV[3]) then return {'SPENT'} end
end

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
    local found = entry and revision_of(entry) or 'absent'
    if found ~= (tonumber(expected) or expected) or not (expected == 'absent' or same_epoch) then
      return {'CONFLICT', tonumber(index), ARGV[a + 1], found, 1}
    end
  end
end
if not writing then return {'DONE', state.epoch, state.number} end

-- Its last answer may have been cleared away while it lived; then this one is to be cleared away too.
local sessions = KEYS[#KEYS]
local is_listed = state.last or call('LPOS', sessions, ARGV[2])

state.number = state.number + 1
local function touch(index, live)
  local held = state.names[index]
  if not held then
    held = {floor = 0, size = 0, gone = 0}
    state.names[index] = held
  end
  held.number, held.live = state.number, live
  state.touched[index] = names[index]
  return held
end

local function set(held, first, key, value)
  if call('HSET', KEYS[first], key, pack('>I8', state.number) .. value) == 1 then
    state.created = state.created + 1
    held.size = held.size + 1
    call('ZADD', KEYS[first + 3], state.created, key)
  end
  call('ZADD', KEYS[first + 1], state.number, key)
end

local function remove(held, first, key)
  if call('HDEL', KEYS[first], key) == 0 then return end
  held.size = held.size - 1
  held.gone = held.gone + call('ZADD', KEYS[first + 2], state.number, key)
  call('ZREM', KEYS[first + 1], key)
  call('ZREM', KEYS[first + 3], key)
end

local function shorten(held, gone)
  local excess = held.gone - kept
  if excess > 0 then
    local last = call('ZRANGE', gone, excess - 1, excess - 1, 'WITHSCORES')
    held.floor = tonumber(last[2])
    held.gone = held.gone - call('ZREMRANGEBYRANK', gone, 0, excess - 1)
  end
end

local function write_all()
  for _, write in ipairs(todo) do
    local index, operation, first, a = write[1], write[2], write[3], write[4]
    if operation == 's' then
      set(touch(index, 1), first, ARGV[a + 1], ARGV[a + 2])
    elseif operation == 'd' then
      remove(touch(index, 1), first, ARGV[a + 1])
    elseif operation == 'x' then
      call('DEL', KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3])
      local held = touch(index, 0)
      held.floor, held.size, held.gone = state.number, 0, 0
    end
  end
  local fields = {'number', state.number, 'created', state.created, state.attempt,
                  ARGV[3] .. ' ' .. state.epoch .. ' ' .. state.number .. ' -'}
  for index, name in pairs(state.touched) do
    local held = state.names[index]
    shorten(held, KEYS[4 * index])
    local n = #fields
    fields[n + 1], fields[n + 2] = 'n:' .. name, pack(NAME, held.number, held.floor, held.live)
    fields[n + 3], fields[n + 4] = 'c:' .. name, pack(COUNTS, held.number, held.size, held.gone)
  end
  for start = 1, #fields, PART do
    call('HSET', KEYS[1], unpack(fields, start, math.min(start + PART - 1, #fields)))
  end
  if not is_listed then call('RPUSH', sessions, ARGV[2]) end
end

-- Where the state may be written and something else not, the state is made to say so: then whoever comes
-- next begins an epoch, and nobody reads of a half.
call('HSET', KEYS[1], state.attempt, ARGV[3] .. ' half')
local done, problem = pcall(write_all)
if done then return {'DONE', state.epoch, state.number} end
call('HSET', KEYS[1], 'run_id', '')
return {'HALF', type(problem) == 'table' and problem.err or tostring(problem)}
