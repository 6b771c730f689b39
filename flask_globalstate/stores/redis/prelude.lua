-- What every script of RedisStore begins with.
-- state: hash of epoch, run_id, number (of the last commit), created (entries ever created), format (1, or
--        none where the release that began the epoch knew of none), and
--        'n:' name -> number, floor, live; floor: the log reaches back to there; live: 0 once dropped
--        'c:' name -> number, how many keys, how many in gone; of no meaning where its number is another
--             than that of 'n:', since releases that don't know it have written meanwhile
--        'a:' session -> "sequence epoch number value", the answer to its last attempt to write;
--             "sequence never" if it must not be applied any more; "sequence half" if it was refused in the
--             middle
-- of each name: data (hash of key -> 8 bytes revision .. value), log (sorted set of key by revision),
--               gone (the same, of removed keys, also of those written again since),
--               order (sorted set of key by creation)
-- Revisions are Lua numbers, written as such: exact to fourteen digits. An epoch begins at the milliseconds
-- since 1970, which have thirteen; from there it is three hundred years of ten thousand commits a second.

local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local NAME, COUNTS = '>I8I8B', '>I8I8I8'
-- A Lua call takes some thousands of arguments at most. Even, so that it cuts between pairs.
local PART = 1000

-- The state and what it knows of names, or nil and the answer. No epoch: the data was flushed. Another
-- run_id: the server behind this connection has changed.
-- KEYS of a name begin at 4 * its index - 2; a script that has none of them says that it is `blind`.
local function read_state(run_id, session, names, blind)
  local fields = {'epoch', 'run_id', 'number', 'created', 'a:' .. session}
  local own = #fields
  for i = 1, #names do
    fields[own + i] = 'n:' .. names[i]
    if not blind then fields[own + #names + i] = 'c:' .. names[i] end
  end
  local held = call('HMGET', KEYS[1], unpack(fields, 1, math.min(PART, #fields)))
  if held[2] ~= run_id or not string.find(held[1] or '', '^%x+$')
      or not string.find((held[3] or '') .. ' ' .. (held[4] or ''), '^%d+ %d+$')
      or #held[3] > 14 or #held[4] > 14 then
    return nil, {'EPOCH'}
  end
  for start = PART + 1, #fields, PART do
    local more = call('HMGET', KEYS[1], unpack(fields, start, math.min(start + PART - 1, #fields)))
    for i = 1, #more do held[start + i - 1] = more[i] end
  end
  local state = {epoch = held[1], number = tonumber(held[3]), created = tonumber(held[4]),
                 attempt = fields[own], last = held[own], names = {}, touched = {}}
  for i = 1, #names do
    local name, counts = held[own + i], held[own + #names + i]
    if name then
      if #name ~= 17 then return nil, {'TORN', i} end
      local number, floor, live = unpack_struct(NAME, name)
      if number > state.number or floor > number then return nil, {'TORN', i} end
      state.names[i] = {number = number, floor = floor, live = live}
      if counts and #counts == 24 and string.sub(counts, 1, 8) == string.sub(name, 1, 8) then
        local _, size, gone = unpack_struct(COUNTS, counts)
        state.names[i].size, state.names[i].gone = size, gone
      end
    end
    if not blind then
      -- This sees to the types of the keys too, before anything is written.
      local first, found = 4 * i - 2, state.names[i] or {size = 0, gone = 0}
      local size, gone = call('HLEN', KEYS[first]), call('ZCARD', KEYS[first + 2])
      if size ~= call('ZCARD', KEYS[first + 1]) or size ~= call('ZCARD', KEYS[first + 3])
          or size ~= (found.size or size) or gone ~= (found.gone or gone) then
        return nil, {'TORN', i}
      end
      found.size, found.gone = size, gone
    end
  end
  return state
end

-- The revision of an entry. One that is too short for one was put there by another program.
local function revision_of(entry)
  return #entry < 8 and 0 or (unpack_struct('>I8', entry))
end
