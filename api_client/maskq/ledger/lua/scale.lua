-- What each model has to do, and how fast its workers do it.
-- → {name, queued, running, live workers, {completions, milliseconds, …} of the last minutes} of each
local running = running_of_models(4000)
local rows = {}
for _, model in ipairs(known_models()) do
  local queued = tonumber(redis.call('HGET', keys.queue_state(model), 'queued') or 0)
  rows[#rows + 1] = {model, queued, running[model] or 0, #live_workers(model), recent_pace(model)}
end
return rows
