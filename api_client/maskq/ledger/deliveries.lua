-- Webhooks, newest first. ARGV: prefix, subject or '', state or '', limit
-- → {{{field, value, …}, {log entry, …}}, …}
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', key('deliveries'), 0, 9999)) do
  local known = redis.call('HMGET', key('delivery', id), 'subject', 'state')
  if not known[1] then
    redis.call('ZREM', key('deliveries'), id)
  elseif (ARGV[2] == '' or known[1] == ARGV[2]) and (ARGV[3] == '' or known[2] == ARGV[3]) then
    found[#found + 1] = {redis.call('HGETALL', key('delivery', id)),
      redis.call('LRANGE', key('delivery', id, 'log'), 0, -1)}
    if #found == tonumber(ARGV[4]) then break end
  end
end
return found
