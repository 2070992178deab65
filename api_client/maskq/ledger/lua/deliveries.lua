-- List webhooks, the newest first.
--   given: a job's id or alias, a batch's id, or ''; wanted: a state or ''
-- → {{{field, value, …}, {log entry, …}}, …}
local given, wanted, limit = unpack(ARGV, 2)
local found, subject = {}, known_id(given)
for _, id in ipairs(redis.call('ZREVRANGE', keys.deliveries(), 0, 9999)) do
  local known = redis.call('HMGET', keys.delivery(id), 'subject', 'state')
  if not known[1] then
    redis.call('ZREM', keys.deliveries(), id)
  elseif (subject == '' or known[1] == subject) and (wanted == '' or known[2] == wanted) then
    found[#found + 1] = {redis.call('HGETALL', keys.delivery(id)),
      redis.call('LRANGE', keys.delivery_log(id), 0, -1)}
    if #found == tonumber(limit) then break end
  end
end
return found
