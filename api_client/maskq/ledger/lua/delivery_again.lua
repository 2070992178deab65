-- Deliver once more, whatever became of it. ARGV: prefix, id → 1 | 0 (unknown, or past its retention)
local row = key('delivery', ARGV[2])
if redis.call('EXISTS', row) == 0 then return 0 end
redis.call('HSET', row, 'state', 'pending', 'next_ms', integer(now))
for _, name in ipairs({row, key('delivery', ARGV[2], 'log')}) do redis.call('PERSIST', name) end
redis.call('ZADD', key('deliveries', 'due'), now, ARGV[2])
return 1
