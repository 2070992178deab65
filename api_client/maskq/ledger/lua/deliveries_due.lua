-- Webhooks to be sent now. Each is one asker's for `hold_ms`, then another's: that one died.
-- ARGV: prefix, cap, hold_ms → {{field, value, …}, …}
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('deliveries', 'due'), '-inf', integer(now),
    'LIMIT', 0, ARGV[2])) do
  local row = redis.call('HGETALL', key('delivery', id))
  if #row == 0 then
    redis.call('ZREM', key('deliveries', 'due'), id)
  else
    redis.call('ZADD', key('deliveries', 'due'), now + tonumber(ARGV[3]), id)
    found[#found + 1] = row
  end
end
return found
