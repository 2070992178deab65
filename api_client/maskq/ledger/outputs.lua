-- Ended jobs whose objects are due to go. Each is given to one asker, and to another should that one die.
-- ARGV: prefix, cap → {'id' or 'id output_prefix', …}
local AGAIN_MS = 300000
local due = redis.call('ZRANGEBYSCORE', key('outputs'), '-inf', integer(now), 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do redis.call('ZADD', key('outputs'), now + AGAIN_MS, member) end
return due
