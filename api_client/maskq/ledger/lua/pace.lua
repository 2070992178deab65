-- Shared by every script: how fast jobs of a model arrive, and how fast its workers are. Both are counted by
-- minutes, in rings: field 'arrived:N' is 'minute jobs'; field 'work:N' is 'minute completions milliseconds', with
-- the milliseconds of each live worker.

local PACE_MINUTES = 8
local ARRIVAL_MINUTES = 3

-- Count a job that was submitted to run at once.
local function count_arrival(model)
  local minute = math.floor(now / 60000)
  local slot = 'arrived:' .. minute % ARRIVAL_MINUTES
  local counted, jobs = string.match(redis.call('HGET', keys.pace(model), slot) or '', '^(%d+) (%d+)$')
  if tonumber(counted) ~= minute then jobs = 0 end
  redis.call('HSET', keys.pace(model), slot, minute .. ' ' .. integer(jobs + 1))
end

-- Returns {jobs that arrived, in so many milliseconds}: in this minute and the two before it.
local function recent_arrivals(model)
  local minute, found = math.floor(now / 60000), 0
  for slot = 0, ARRIVAL_MINUTES - 1 do
    local text = redis.call('HGET', keys.pace(model), 'arrived:' .. slot) or ''
    local counted, jobs = string.match(text, '^(%d+) (%d+)$')
    if counted and minute - counted < ARRIVAL_MINUTES then found = found + jobs end
  end
  return {found, (ARRIVAL_MINUTES - 1) * 60000 + now % 60000}
end

-- Returns {completions, milliseconds of workers, …} of the minutes of the ring that are `oldest` minutes old or
-- younger.
local function pace_of_minutes(model, oldest)
  local minute, found = math.floor(now / 60000), {}
  for slot = 0, PACE_MINUTES - 1 do
    local text = redis.call('HGET', keys.pace(model), 'work:' .. slot) or ''
    local counted, jobs, ms = string.match(text, '^(%d+) (%d+) (%d+)$')
    if counted and minute - counted <= oldest then
      found[#found + 1] = jobs
      found[#found + 1] = ms
    end
  end
  return found
end

local function recent_pace(model)
  return pace_of_minutes(model, PACE_MINUTES - 1)
end

-- Whenever that was: a model that was scaled to zero is as fast as it was before.
local function last_pace(model)
  return pace_of_minutes(model, math.huge)
end

-- Count the completion, with the time since the one before. Only while jobs wait does that time tell how fast
-- the workers are.
local function count_completion(model)
  local pace, minute = keys.pace(model), math.floor(now / 60000)
  local slot = 'work:' .. minute % PACE_MINUTES
  local seen = redis.call('HMGET', pace, 'since_ms', slot)
  local is_backlog = redis.call('LLEN', keys.queue(model)) > 0
  local since = tonumber(seen[1])
  if not since then
    if is_backlog then redis.call('HSET', pace, 'since_ms', integer(now)) end
    return
  end
  local workers = math.max(1, live_count(model))
  local counted, jobs, ms = string.match(seen[2] or '', '^(%d+) (%d+) (%d+)$')
  if tonumber(counted) ~= minute then jobs, ms = 0, 0 end
  redis.call('HSET', pace, 'since_ms', is_backlog and integer(now) or '',
    slot, minute .. ' ' .. integer(jobs + 1) .. ' ' .. integer(ms + math.max(now - since, 0) * workers))
end

-- How many deferred jobs of each model may start by now: {model → count}. The sweepers of workers make them
-- ready; without a worker, nobody does. Looks at `most` jobs.
local function due_of_models(most)
  local due = {}
  local ids = redis.call('ZRANGEBYSCORE', keys.waiting(), '-inf', integer(now), 'LIMIT', 0, most)
  for _, id in ipairs(ids) do
    local model = redis.call('HGET', keys.record(id), 'model')
    if model then due[model] = (due[model] or 0) + 1 end
  end
  return due
end

-- What each model has to do, and how fast one of its workers is: {name, queued, those of them that would start
-- if there were workers enough, running, live workers, {jobs that arrived, in milliseconds},
-- {completions, milliseconds of workers, …} of the last minutes, the same of the last minutes with work}.
-- Returns also the waiting_counts of each.
local function demand_of_models()
  local running, due, looks = running_by('model'), due_of_models(1000), looks_of_models()
  local rows, counts = {}, {}
  for _, model in ipairs(known_models()) do
    local waiting = waiting_counts(model, looks[model])
    counts[#counts + 1] = waiting
    rows[#rows + 1] = {model, queued_count(model),
      waiting.startable + (due[model] or 0), running[model] or 0, live_count(model),
      recent_arrivals(model), recent_pace(model), last_pace(model)}
  end
  return rows, counts
end
