-- KEYS: state
-- ARGV: run_id, a new epoch
-- After a restart that lost data, or a failover, numbers would be given out twice: another run_id of
-- the server, or data without an epoch, begins a new epoch.
if redis.call('HGET', KEYS[1], 'run_id') ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'run_id', ARGV[1], 'epoch', ARGV[2])
  redis.call('HSETNX', KEYS[1], 'number', 0)
  redis.call('HSETNX', KEYS[1], 'created', 0)
end
return {'DONE'}
