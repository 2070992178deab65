-- Webhooks, newest first. ARGV: prefix, subject (a job's id or alias, or a batch's id) or '', state or '', limit
-- → {{{field, value, …}, {log entry, …}}, …}
local found, subject = {}, known_id(ARGV[2])
for _, id in ipairs(redis.call('ZREVRANGE', key('deliveries'), 0, 9999)) do
  local known = redis.call('HMGET', key('delivery', id), 'subject', 'state')
  if not known[1] then
    redis.call('ZREM', key('deliveries'), id)
  elseif (subject == '' or known[1] == subject) and (ARGV[3] == '' or known[2] == ARGV[3]) then
    found[#found + 1] = {redis.call('HGETALL', key('delivery', id)),
      redis.call('LRANGE', key('delivery', id, 'log'), 0, -1)}
    if #found == tonumber(ARGV[4]) then break end
  end
end
return found
