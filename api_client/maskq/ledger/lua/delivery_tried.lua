-- Record an attempt to deliver a webhook.
--   attempts: before this one; state: 'delivered' | 'failed' | 'pending' (again after delay_ms)
--     | 'later' (not tried, and not counted); entry: of the log, JSON
-- → the state | 'stale'
local id, attempts, state, delay_ms, entry, keep_ms = unpack(ARGV, 2)
delay_ms = tonumber(delay_ms)
local row = keys.delivery(id)
if redis.call('HGET', row, 'attempts') ~= attempts then return 'stale' end  -- sent twice, or another's
if state == 'later' then
  redis.call('ZADD', keys.deliveries_due(), now + delay_ms, id)
  return 'later'
end
redis.call('HINCRBY', row, 'attempts', 1)
redis.call('RPUSH', keys.delivery_log(id), entry)
redis.call('LTRIM', keys.delivery_log(id), -20, -1)
redis.call('HSET', row, 'state', state)
raise_counter('webhooks ' .. state, 1)
if state == DELIVERY_PENDING then
  redis.call('HSET', row, 'next_ms', integer(now + delay_ms))
  redis.call('ZADD', keys.deliveries_due(), now + delay_ms, id)
  return state
end
redis.call('HDEL', row, 'next_ms')
redis.call('ZREM', keys.deliveries_due(), id)
if state == DELIVERY_FAILED then redis.call('ZADD', keys.deliveries_dead(), now, id) end
for _, name in ipairs({row, keys.delivery_log(id)}) do redis.call('PEXPIRE', name, keep_ms) end
return state
