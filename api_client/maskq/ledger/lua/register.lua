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
local is_new = redis.call('ZADD', workers, integer(now + live_ms), worker) == 1
redis.call('HSET', heartbeats, owner, integer(now) .. ' ' .. heartbeat)
local revisions = keys.revisions(model)
redis.call('ZREMRANGEBYSCORE', revisions, '-inf', integer(now))
redis.call('ZADD', revisions, integer(now + live_ms), same)
for _, name in ipairs({workers, heartbeats, revisions}) do redis.call('PEXPIRE', name, live_ms) end
local others = {}
-- Usually all serve one revision: then only a worker that starts looks at the others, of which there may be thousands.
if not is_new and redis.call('ZCARD', revisions) == 1 then return others end
for _, other in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  if not string.find(other, same, 1, true) then others[#others + 1] = other end
  if #others == 20 then break end
end
return others
