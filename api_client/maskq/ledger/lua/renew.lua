-- Renew the leases of a process. A late renewal succeeds if no sweep has taken the job.
--   then pairs: id, token, id, token, …
-- → the tokens that hold no job any more; their jobs must stop
local lease_ms = unpack(ARGV, 2, 2)
local lost = {}
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local known = redis.call('HMGET', keys.record(id), 'status', 'token')
  if known[1] == RUNNING and known[2] == token then
    redis.call('ZADD', keys.leases(), now + tonumber(lease_ms), id)
  else
    lost[#lost + 1] = token
  end
end
return lost
