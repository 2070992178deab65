-- What each model has to do, and how fast its workers do it.
-- → {name, queued, running, live workers, {completions, milliseconds, …} of the last minutes} of each
local running = {}
for _, id in ipairs(redis.call('ZRANGE', keys.leases(), 0, -1)) do
  local model = redis.call('HGET', keys.record(id), 'model')
  if model then running[model] = (running[model] or 0) + 1 end
end
local rows = {}
for _, model in ipairs(known_models()) do
  local queued = tonumber(redis.call('HGET', keys.queue_state(model), 'queued') or 0)
  rows[#rows + 1] = {model, queued, running[model] or 0, #live_workers(model), recent_pace(model)}
end
return rows
