-- Shared by every script: counters of the deployment, which calls/metrics.py reads. A counter is a field of
-- one hash: its name, its labels and, last, the model, which may contain spaces.

local function raise_counter(name, by)
  redis.call('HINCRBY', keys.counters(), name, by)
end

-- Count a job that ended. `code`: of its error; '' if it succeeded. Jobs of a model that was retired meanwhile
-- count under the model ''.
local function count_end(model, state, code)
  if redis.call('HEXISTS', keys.models(), model) == 0 then model = '' end
  raise_counter('jobs ' .. state .. ' ' .. code .. ' ' .. model, 1)
end

-- Remove the counts of a model that is retired.
local function forget_counters(model)
  for _, name in ipairs(redis.call('HKEYS', keys.counters())) do
    if string.match(name, '^jobs %S+ %S* (.*)$') == model then redis.call('HDEL', keys.counters(), name) end
  end
end
