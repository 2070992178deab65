-- Note that a worker claims nothing, because its object store is away.
--   live_ms: how long the note holds, unless it is repeated
local model, owner, live_ms = unpack(ARGV, 2)
local name = keys.store_away(model)
redis.call('ZREMRANGEBYSCORE', name, '-inf', integer(now))
redis.call('ZADD', name, now + live_ms, owner)
redis.call('PEXPIRE', name, live_ms)
return 'noted'
