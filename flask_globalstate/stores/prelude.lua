-- What every script of RedisStore begins with.
-- state: hash of epoch, run_id, number (of the last commit), created (entries ever created)
-- names: hash of name -> "number floor live"; floor: the log reaches back to there; live: 0 once dropped
-- of each name: data (hash of key -> 8 bytes revision .. value), log (sorted set of key by revision),
--               gone (the same, of removed keys, also of those written again since),
--               order (sorted set of key by creation)

local function read_state(state, run_id)
  local held = redis.call('HMGET', state, 'epoch', 'run_id', 'number', 'created')
  -- No epoch: the data was flushed. Another run_id: the server behind this connection has changed.
  if not held[1] or held[2] ~= run_id then return nil end
  return {epoch = held[1], number = tonumber(held[3]), created = tonumber(held[4])}
end

local function text(number) return string.format('%.0f', number) end

local function read_name(names, name)
  local held = redis.call('HGET', names, name)
  if not held then return nil end
  local number, floor, live = string.match(held, '^(%d+) (%d+) (%d)$')
  return {number = tonumber(number), floor = tonumber(floor), live = tonumber(live)}
end

local function write_name(names, name, held)
  redis.call('HSET', names, name, text(held.number) .. ' ' .. text(held.floor) .. ' ' .. held.live)
end

-- The answer to an attempt is kept, so that one whose answer was lost can be settled.
local function is_spent(attempt, sequence)
  local last = redis.call('GET', attempt)
  return last and tonumber(string.match(last, '^%d+')) >= sequence
end

local function answer_attempt(attempt, sequence, epoch, number, value)
  redis.call('SET', attempt, text(sequence) .. ' ' .. epoch .. ' ' .. text(number) .. ' ' .. value, 'EX', 3600)
end

local function put(keys, first, state, key, value)
  local data, log, order = keys[first], keys[first + 1], keys[first + 3]
  if redis.call('HSET', data, key, struct.pack('>I8', state.number) .. value) == 1 then
    state.created = state.created + 1
    redis.call('ZADD', order, text(state.created), key)
  end
  redis.call('ZADD', log, text(state.number), key)
end
