-- Remove a worker that stops. Its model stays known.
local model, worker, owner = unpack(ARGV, 2)
redis.call('ZREM', keys.workers(model), worker)
redis.call('HDEL', keys.heartbeats(model), owner)
if redis.call('EXISTS', keys.workers(model)) == 0 then redis.call('DEL', keys.revisions(model)) end
return 'left'
