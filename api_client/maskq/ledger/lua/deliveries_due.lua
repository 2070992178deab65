-- Take webhooks that are due. Each belongs to the caller for hold_ms; then another caller may take it.
-- → {{field, value, …}, …}
local cap, hold_ms = unpack(ARGV, 2)
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys.deliveries_due(), '-inf', integer(now),
    'LIMIT', 0, cap)) do
  local row = redis.call('HGETALL', keys.delivery(id))
  if #row == 0 then
    redis.call('ZREM', keys.deliveries_due(), id)
  else
    redis.call('ZADD', keys.deliveries_due(), now + tonumber(hold_ms), id)
    found[#found + 1] = row
  end
end
return found
