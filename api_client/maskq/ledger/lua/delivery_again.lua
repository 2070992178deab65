-- Deliver a webhook once more, whatever its state.
-- → 1 | 0 (unknown, or past its retention)
local id = unpack(ARGV, 2)
local row = keys.delivery(id)
if redis.call('EXISTS', row) == 0 then return 0 end
redis.call('HSET', row, 'state', DELIVERY_PENDING, 'next_ms', integer(now))
for _, name in ipairs({row, keys.delivery_log(id)}) do redis.call('PERSIST', name) end
redis.call('ZADD', keys.deliveries_due(), now, id)
redis.call('ZREM', keys.deliveries_dead(), id)
return 1
