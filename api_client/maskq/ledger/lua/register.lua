-- Register a worker that serves a model; a worker repeats this while it lives.
--   about: of the model, JSON; worker: JSON; live_ms: how long it counts as alive;
--   same: text that the JSON of a worker with the same revision contains;
--   owner, heartbeat: its name, and what it says of itself now, JSON
-- → workers (JSON) that serve another revision under the same name; at most 20
local model, about, worker, live_ms, same, owner, heartbeat = unpack(ARGV, 2)
redis.call('HSET', keys.models(), model, about)
local workers, heartbeats = keys.workers(model), keys.heartbeats(model)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', integer(now))) do
  redis.call('HDEL', heartbeats, cjson.decode(gone).owner)
end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', integer(now))
redis.call('ZADD', workers, integer(now + live_ms), worker)
redis.call('PEXPIRE', workers, live_ms)
redis.call('HSET', heartbeats, owner, integer(now) .. ' ' .. heartbeat)
redis.call('PEXPIRE', heartbeats, live_ms)
local others = {}
for _, other in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  if #others < 20 and not string.find(other, same, 1, true) then others[#others + 1] = other end
end
return others
