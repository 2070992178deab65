-- Take jobs whose objects are due for removal. If the caller dies, another gets them after AGAIN_MS.
--   set: keys.outputs() (ended, past their retention) or keys.orphans() (an attempt was cut off)
-- → {member, …}, see storage_member
local set, cap = unpack(ARGV, 2)
local AGAIN_MS = 300000
local due = redis.call('ZRANGEBYSCORE', set, '-inf', integer(now), 'LIMIT', 0, cap)
for _, member in ipairs(due) do redis.call('ZADD', set, now + AGAIN_MS, member) end
return due
