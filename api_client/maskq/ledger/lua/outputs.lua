-- Jobs whose objects are due to be looked after. Each is given to one asker, and to another should that
-- one die. ARGV: prefix, cap, 'outputs' (ended, past their retention) | 'orphans' (an attempt was cut off)
-- → {'id' or 'id output_prefix', …}
local AGAIN_MS = 300000
local due = redis.call('ZRANGEBYSCORE', key(ARGV[3]), '-inf', integer(now), 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do redis.call('ZADD', key(ARGV[3]), now + AGAIN_MS, member) end
return due
