-- Remove a worker that stops. Its model stays known.
local model, worker, owner = unpack(ARGV, 2)
redis.call('ZREM', keys.workers(model), worker)
redis.call('HDEL', keys.heartbeats(model), owner)
return 'left'
