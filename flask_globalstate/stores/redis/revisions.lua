-- KEYS: state
-- ARGV: run_id, name...
local names = {}
for i = 2, #ARGV do names[i - 1] = ARGV[i] end
local state, torn = read_state(ARGV[1], '', names, true)
if not state then return torn end
local answer = {'DONE', state.epoch}
for i = 1, #names do answer[2 + i] = state.names[i] and state.names[i].number or 0 end
return answer
