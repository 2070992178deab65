-- Shared by every script: where a job stands in the queue.

-- The levels of a tenant: {level, jobs, start, …}.
local function levels_of(model, tenant)
  local levels, state = {}, keys.tenant_levels(tenant, model)
  local time = tonumber(redis.call('HGET', state, 'time') or 0)
  for _, level in ipairs(LEVELS) do
    local due = tonumber(redis.call('HGET', state, 'due:' .. level) or 0)
    levels[#levels + 1] = level
    levels[#levels + 1] = redis.call('ZCARD', keys.ready(model, level, tenant))
    levels[#levels + 1] = math.max(due, time)
  end
  return levels
end

-- The tenants that wait for their turns, without `own`: {name, stride, jobs, start, …}.
local function other_tenants(model, own)
  local others = {}
  for _, weight in ipairs(redis.call('ZRANGE', keys.share_weights(model), 0, -1)) do
    local known = redis.call('ZRANGE', keys.shares(model, weight), 0, -1, 'WITHSCORES')
    for i = 1, #known, 2 do
      if known[i] ~= own then
        for _, value in ipairs({known[i], stride(weight), ready_of_tenant(model, known[i]), known[i + 1]}) do
          others[#others + 1] = value
        end
      end
    end
  end
  return others
end

-- → {} if the job may not start now | {its level, jobs of its level and tenant before it, live workers,
--   levels of its tenant, its tenant's {name, stride, start}, other tenants,
--   {completions, milliseconds, …} of the last minutes}
local function queue_place(id, at)
  local rank = redis.call('ZRANK', keys.ready(at.model, at.level, at.tenant), id)
  if not rank then return {} end
  local weight = share_settings(at.tenant).weight
  local start = redis.call('ZSCORE', keys.shares(at.model, weight), at.tenant)
  if not start then return {} end
  return {at.level, rank, live_count(at.model), levels_of(at.model, at.tenant),
    {at.tenant, stride(weight), start}, other_tenants(at.model, at.tenant), recent_pace(at.model)}
end
