-- What every script of RedisStore begins with.
-- state: hash of epoch, run_id, number (of the last commit), created (entries ever created), and
--        'n:' name -> number, floor, live; floor: the log reaches back to there; live: 0 once dropped
--        'a:' session -> "sequence epoch number value", the answer to its last attempt to write
-- of each name: data (hash of key -> 8 bytes revision .. value), log (sorted set of key by revision),
--               gone (the same, of removed keys, also of those written again since),
--               order (sorted set of key by creation)
-- Revisions are Lua numbers, written as such: exact to fourteen digits, which is three hundred years of
-- ten thousand commits a second.

local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local NAME = '>I8I8B'
-- A Lua call takes some thousands of arguments at most. Even, so that it cuts between pairs.
local PART = 1000

-- The state and what it knows of names, or nil. No epoch: the data was flushed. Another run_id: the
-- server behind this connection has changed.
local function read_state(run_id, session, names)
  local fields = {'epoch', 'run_id', 'number', 'created', 'a:' .. session}
  local own = #fields
  for i = 1, #names do fields[own + i] = 'n:' .. names[i] end
  local held = call('HMGET', KEYS[1], unpack(fields, 1, math.min(PART, #fields)))
  if not held[1] or held[2] ~= run_id then return nil end
  for start = PART + 1, #fields, PART do
    local more = call('HMGET', KEYS[1], unpack(fields, start, math.min(start + PART - 1, #fields)))
    for i = 1, #more do held[start + i - 1] = more[i] end
  end
  local state = {epoch = held[1], number = tonumber(held[3]), created = tonumber(held[4]),
                 attempt = fields[own], last = held[own], names = {}, touched = {}}
  for i = 1, #names do
    local name = held[own + i]
    if name then
      local number, floor, live = unpack_struct(NAME, name)
      state.names[i] = {number = number, floor = floor, live = live}
    end
  end
  return state
end

-- An attempt that was settled as never applied must not be applied when it arrives late.
local function is_spent(state, sequence)
  return state.last and tonumber(string.match(state.last, '^%d+')) >= sequence
end

local function touch(state, i, name, live)
  local held = state.names[i]
  if not held then
    held = {floor = 0}
    state.names[i] = held
  end
  held.number, held.live = state.number, live
  state.touched[i] = name
  return held
end

-- Scripts that write have the list of sessions as their last key.
local function write_state(state, sequence, value)
  local session = string.sub(state.attempt, 3)
  if not state.last and not call('LPOS', KEYS[#KEYS], session) then
    -- Its last answer was cleared away while it lived; this one is to be cleared away too.
    call('RPUSH', KEYS[#KEYS], session)
  end
  local fields = {'number', state.number, 'created', state.created, state.attempt,
                  sequence .. ' ' .. state.epoch .. ' ' .. state.number .. ' ' .. value}
  for i, name in pairs(state.touched) do
    local held = state.names[i]
    fields[#fields + 1] = 'n:' .. name
    fields[#fields + 1] = pack(NAME, held.number, held.floor, held.live)
  end
  for start = 1, #fields, PART do
    call('HSET', KEYS[1], unpack(fields, start, math.min(start + PART - 1, #fields)))
  end
end

local function put(state, first, key, value)
  if call('HSET', KEYS[first], key, pack('>I8', state.number) .. value) == 1 then
    state.created = state.created + 1
    call('ZADD', KEYS[first + 3], state.created, key)
  end
  call('ZADD', KEYS[first + 1], state.number, key)
end
