-- What every script of RedisStore begins with.
-- state: hash of epoch, run_id, number (of the last commit), created (entries ever created), and
--        'n:' name -> "number floor live"; floor: the log reaches back to there; live: 0 once dropped
--        'a:' session -> "sequence epoch number value", the answer to its last attempt to write
-- of each name: data (hash of key -> 8 bytes revision .. value), log (sorted set of key by revision),
--               gone (the same, of removed keys, also of those written again since),
--               order (sorted set of key by creation)

local function text(number) return string.format('%.0f', number) end

-- The state and what it knows of names, or nil. No epoch: the data was flushed. Another run_id: the
-- server behind this connection has changed.
local function read_state(key, run_id, session, names)
  local fields = {'epoch', 'run_id', 'number', 'created', 'a:' .. session}
  for i, name in ipairs(names) do fields[5 + i] = 'n:' .. name end
  local held = redis.call('HMGET', key, unpack(fields))
  if not held[1] or held[2] ~= run_id then return nil end
  local state = {key = key, epoch = held[1], number = tonumber(held[3]), created = tonumber(held[4]),
                 attempt = fields[5], last = held[5], names = {}, changed = {}}
  for i in ipairs(names) do
    if held[5 + i] then
      local number, floor, live = string.match(held[5 + i], '^(%d+) (%d+) (%d)$')
      state.names[i] = {number = tonumber(number), floor = tonumber(floor), live = live}
    end
  end
  return state
end

-- An attempt that was settled as never applied must not be applied when it arrives late.
local function is_spent(state, sequence)
  return state.last and tonumber(string.match(state.last, '^%d+')) >= sequence
end

local function touch(state, i, name, live)
  local held = state.names[i] or {floor = 0}
  held.number, held.live = state.number, live
  state.names[i], state.changed[i] = held, name
  return held
end

local function write_state(state, sequence, value)
  local fields = {'number', text(state.number), 'created', text(state.created), state.attempt,
                  text(sequence) .. ' ' .. state.epoch .. ' ' .. text(state.number) .. ' ' .. value}
  for i, name in pairs(state.changed) do
    local held = state.names[i]
    fields[#fields + 1] = 'n:' .. name
    fields[#fields + 1] = text(held.number) .. ' ' .. text(held.floor) .. ' ' .. held.live
  end
  redis.call('HSET', state.key, unpack(fields))
end

local function put(state, first, key, value)
  if redis.call('HSET', KEYS[first], key, struct.pack('>I8', state.number) .. value) == 1 then
    state.created = state.created + 1
    redis.call('ZADD', KEYS[first + 3], text(state.created), key)
  end
  redis.call('ZADD', KEYS[first + 1], text(state.number), key)
end
