-- Renew every lease a process holds in one call. A late renewal of a lease that nobody swept succeeds.
-- ARGV: prefix, lease_ms, id, token, id, token, … → the tokens no longer held; their jobs must stop
local lost = {}
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local known = redis.call('HMGET', record_key(id), 'status', 'token')
  if known[1] == 'running' and known[2] == token then
    redis.call('ZADD', key('leases'), now + tonumber(ARGV[2]), id)
  else
    lost[#lost + 1] = token
  end
end
return lost
