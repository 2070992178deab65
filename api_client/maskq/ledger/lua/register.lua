-- A worker says that it serves a model, and goes on to say so while it lives.
-- ARGV: prefix, model, about the model (JSON), the worker (JSON), ms for which it counts as alive,
--       what the JSON of a worker holds that serves the same revision
-- → workers (JSON) that serve another revision under the same name; at most 20
local model, worker, live_ms, same = ARGV[2], ARGV[4], ARGV[5], ARGV[6]
redis.call('HSET', key('models'), model, ARGV[3])
local workers = workers_key(model)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', integer(now))
redis.call('ZADD', workers, integer(now + live_ms), worker)
redis.call('PEXPIRE', workers, live_ms)
local others = {}
for _, other in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  if #others < 20 and not string.find(other, same, 1, true) then others[#others + 1] = other end
end
return others
