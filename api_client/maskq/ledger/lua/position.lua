-- Look at the queue before a job.
-- → {} if the job may not run now | {its level, claims of that level before it, live workers,
--   {level, jobs, start, …}, {completions, milliseconds, …} of the last minutes}
local given = unpack(ARGV, 2)
local id = known_id(given)
local at = placement(id)
if not at.model then return {} end
local rank = redis.call('ZRANK', keys.ready(at.model, at.level, at.tenant), id)
if not rank then return {} end

-- Tenants take turns in the order of the rotation, so one that comes before this job's tenant has one turn
-- more before the job.
local ahead, is_behind = rank, false
for _, tenant in ipairs(redis.call('ZRANGE', keys.tenant_rotation(at.model, at.level), 0, -1)) do
  if tenant == at.tenant then
    is_behind = true
  else
    local jobs = redis.call('ZCARD', keys.ready(at.model, at.level, tenant))
    ahead = ahead + math.min(jobs, is_behind and rank or rank + 1)
  end
end

local levels = {}
local time = tonumber(redis.call('HGET', keys.queue_state(at.model), 'time') or 0)
for _, level in ipairs(LEVELS) do
  local jobs = 0
  for _, tenant in ipairs(redis.call('ZRANGE', keys.tenant_rotation(at.model, level), 0, -1)) do
    jobs = jobs + redis.call('ZCARD', keys.ready(at.model, level, tenant))
  end
  local due = tonumber(redis.call('HGET', keys.queue_state(at.model), 'due:' .. level) or 0)
  for _, value in ipairs({level, jobs, math.max(due, time)}) do levels[#levels + 1] = value end
end
return {at.level, ahead, #live_workers(at.model), levels, recent_pace(at.model)}
