-- What an attempt to deliver came to.
-- ARGV: prefix, id, attempts before it, 'delivered' | 'failed' | 'pending' (again after delay_ms) | 'later'
--       (not tried: not counted), delay_ms, log entry JSON, keep_ms → the state | 'stale'
local id, state, delay_ms = ARGV[2], ARGV[4], tonumber(ARGV[5])
local row = key('delivery', id)
if redis.call('HGET', row, 'attempts') ~= ARGV[3] then return 'stale' end  -- sent twice, or another's
if state == 'later' then
  redis.call('ZADD', key('deliveries', 'due'), now + delay_ms, id)
  return 'later'
end
redis.call('HINCRBY', row, 'attempts', 1)
redis.call('RPUSH', key('delivery', id, 'log'), ARGV[6])
redis.call('LTRIM', key('delivery', id, 'log'), -20, -1)
redis.call('HSET', row, 'state', state)
if state == 'pending' then
  redis.call('HSET', row, 'next_ms', integer(now + delay_ms))
  redis.call('ZADD', key('deliveries', 'due'), now + delay_ms, id)
  return state
end
redis.call('HDEL', row, 'next_ms')
redis.call('ZREM', key('deliveries', 'due'), id)
for _, name in ipairs({row, key('delivery', id, 'log')}) do redis.call('PEXPIRE', name, ARGV[7]) end
return state
