-- KEYS: state, sessions
-- ARGV: run_id, a new epoch, session, sessions kept
-- After a restart that lost data, or a failover, numbers would be given out twice: another run_id of
-- the server, or data without an epoch, begins a new epoch.
if redis.call('HGET', KEYS[1], 'run_id') ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'run_id', ARGV[1], 'epoch', ARGV[2])
  redis.call('HSETNX', KEYS[1], 'number', 0)
  redis.call('HSETNX', KEYS[1], 'created', 0)
end
if not redis.call('LPOS', KEYS[2], ARGV[3]) then
  redis.call('RPUSH', KEYS[2], ARGV[3])
end
for _ = 1, redis.call('LLEN', KEYS[2]) - tonumber(ARGV[4]) do
  redis.call('HDEL', KEYS[1], 'a:' .. redis.call('LPOP', KEYS[2]))
end
return {'DONE'}
