-- Shared by every script: how fast the workers of a model are. Its completions are counted by minutes, in a
-- ring: field 'minute:N' is 'minute completions milliseconds'.

local PACE_MINUTES = 8

-- Returns {completions, milliseconds, …} of the last minutes.
local function recent_pace(model)
  local minute, found = math.floor(now / 60000), {}
  for slot = 0, PACE_MINUTES - 1 do
    local text = redis.call('HGET', keys.pace(model), 'minute:' .. slot) or ''
    local counted, jobs, ms = string.match(text, '^(%d+) (%d+) (%d+)$')
    if counted and minute - counted < PACE_MINUTES then
      found[#found + 1] = jobs
      found[#found + 1] = ms
    end
  end
  return found
end

-- Count the completion, with the time since the one before. Only while jobs wait does that time tell how fast
-- the workers are.
local function count_completion(model)
  local pace, minute = keys.pace(model), math.floor(now / 60000)
  local slot = 'minute:' .. minute % PACE_MINUTES
  local seen = redis.call('HMGET', pace, 'since_ms', slot)
  local is_backlog = redis.call('LLEN', keys.queue(model)) > 0
  local since = tonumber(seen[1])
  if not since then
    if is_backlog then redis.call('HSET', pace, 'since_ms', integer(now)) end
    return
  end
  local counted, jobs, ms = string.match(seen[2] or '', '^(%d+) (%d+) (%d+)$')
  if tonumber(counted) ~= minute then jobs, ms = 0, 0 end
  redis.call('HSET', pace, 'since_ms', is_backlog and integer(now) or '',
    slot, minute .. ' ' .. integer(jobs + 1) .. ' ' .. integer(ms + math.max(now - since, 0)))
end
