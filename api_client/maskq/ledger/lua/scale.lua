-- What each model has to do, and how fast one of its workers is.
-- → {name, queued, those of them that may start, running, live workers, {jobs that arrived, in milliseconds},
--   {completions, milliseconds of workers, …} of the last minutes, the same of the last minutes with work} of each
local MOST_DUE = 1000  -- deferred jobs that are looked at

local running, due = {}, {}
local function count_model(counts, id)
  local model = redis.call('HGET', keys.record(id), 'model')
  if model then counts[model] = (counts[model] or 0) + 1 end
end
for _, id in ipairs(redis.call('ZRANGE', keys.leases(), 0, -1)) do count_model(running, id) end
-- The sweepers of workers make them ready. Without a worker, nobody does.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys.waiting(), '-inf', integer(now), 'LIMIT', 0, MOST_DUE)) do
  count_model(due, id)
end

local rows = {}
for _, model in ipairs(known_models()) do
  local queued = tonumber(redis.call('HGET', keys.queue_state(model), 'queued') or 0)
  rows[#rows + 1] = {model, queued, startable_count(model) + (due[model] or 0), running[model] or 0,
    #live_workers(model), recent_arrivals(model), recent_pace(model), last_pace(model)}
end
return rows
