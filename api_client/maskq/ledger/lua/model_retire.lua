-- Forget a model. One that is in use only by force: its queued jobs are then canceled by
-- model_cancel.lua, what runs goes on, and a worker that still serves it registers it again.
-- ARGV: prefix, model, force ('1')
-- → {'unknown', names…} | {'retired' | 'in_use', live workers, queued, running, default ('1' | '0')}
local model, force = ARGV[2], ARGV[3] == '1'
if redis.call('HEXISTS', key('models'), model) == 0 then return {'unknown', unpack(known_models())} end
local workers = #live_workers(model)
local queued = tonumber(redis.call('HGET', key('queue', model), 'queued') or 0)
local running = 0
for _, id in ipairs(redis.call('ZRANGE', key('leases'), 0, -1)) do
  if redis.call('HGET', record_key(id), 'model') == model then running = running + 1 end
end
local is_default = redis.call('GET', key('default-model')) == model
local seen = {tostring(workers), tostring(queued), tostring(running), is_default and '1' or '0'}
if not force and (workers > 0 or queued > 0 or running > 0 or is_default) then
  return {'in_use', unpack(seen)}
end
redis.call('HDEL', key('models'), model)
redis.call('DEL', workers_key(model))
if is_default then redis.call('DEL', key('default-model')) end
if workers == 0 and queued == 0 and running == 0 then
  redis.call('DEL', key('queue', model), prefix .. '.' .. model)
end
return {'retired', unpack(seen)}
