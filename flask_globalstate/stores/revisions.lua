-- KEYS: state, names
-- ARGV: run_id, name...
local state = read_state(KEYS[1], ARGV[1])
if not state then return {'EPOCH'} end
local answer = {'DONE', state.epoch}
for i = 2, #ARGV do
  local held = read_name(KEYS[2], ARGV[i])
  answer[i + 1] = text(held and held.number or 0)
end
return answer
