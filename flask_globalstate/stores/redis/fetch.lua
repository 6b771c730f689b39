-- KEYS: state, data log gone order
-- ARGV: run_id, name, 'some', key... | 'all' | 'keys'
-- some: the value of each key; all: key and value of every entry in order; keys: every key in order
local state, torn = read_state(ARGV[1], '', {ARGV[2]})
if not state then return torn end
local number = state.names[1] and state.names[1].number or 0
if ARGV[3] == 'keys' then return {'DONE', state.epoch, number, call('ZRANGE', KEYS[5], 0, -1)} end

local all = ARGV[3] == 'all'
local wanted, from = ARGV, 4
if all then wanted, from = call('ZRANGE', KEYS[5], 0, -1), 1 end
local answer, n = {}, 0
for start = from, #wanted, PART do
  local stop = math.min(start + PART - 1, #wanted)
  local values = call('HMGET', KEYS[2], unpack(wanted, start, stop))
  for i = 1, stop - start + 1 do
    if all then
      n = n + 1
      answer[n] = wanted[start + i - 1]
    end
    n = n + 1
    answer[n] = values[i]
  end
end
return {'DONE', state.epoch, number, answer}
