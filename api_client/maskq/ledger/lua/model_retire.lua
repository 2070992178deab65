-- Forget a model. One that is in use only with force = '1': model_cancel.lua then cancels its queued
-- jobs, running jobs go on, and a worker that still serves it registers it again.
-- → {'unknown', names…} | {'retired' | 'in_use', live workers, queued, running, default ('1' | '0')}
local model, force = unpack(ARGV, 2)
if redis.call('HEXISTS', keys.models(), model) == 0 then return {'unknown', unpack(known_models())} end
local workers = live_count(model)
local queued = queued_count(model)
local running = 0
for _, id in ipairs(redis.call('ZRANGE', keys.leases(), 0, -1)) do
  if redis.call('HGET', keys.record(id), 'model') == model then running = running + 1 end
end
local is_default = redis.call('GET', keys.default_model()) == model
local seen = {tostring(workers), tostring(queued), tostring(running), is_default and '1' or '0'}
if force ~= '1' and (workers > 0 or queued > 0 or running > 0 or is_default) then
  return {'in_use', unpack(seen)}
end
redis.call('HDEL', keys.models(), model)
redis.call('DEL', keys.workers(model), keys.heartbeats(model), keys.revisions(model))
forget_counters(model)
if is_default then redis.call('DEL', keys.default_model()) end
if workers == 0 and queued == 0 and running == 0 then
  redis.call('DEL', keys.queue_state(model), keys.queue(model), keys.pace(model))
end
return {'retired', unpack(seen)}
