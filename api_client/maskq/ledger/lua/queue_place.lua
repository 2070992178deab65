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

-- The tenants that wait for their turns, without `own`: {name, stride, jobs, start, how many tenants it stands for, …}.
-- Of more than MOST_OTHERS it looks at the next ones of each weight, which stand for the others.
local MOST_OTHERS = 200
local function other_tenants(model, own, most)
  local others, weights, sizes, total = {}, redis.call('ZRANGE', keys.share_weights(model), 0, -1), {}, 0
  for i, weight in ipairs(weights) do
    sizes[i] = redis.call('ZCARD', keys.shares(model, weight))
    total = total + sizes[i]
  end
  local share = math.min((most or MOST_OTHERS) / math.max(total, 1), 1)
  for i, weight in ipairs(weights) do
    local looked_at = math.ceil(sizes[i] * share)
    local known = redis.call('ZRANGE', keys.shares(model, weight), 0, looked_at - 1, 'WITHSCORES')
    for j = 1, #known, 2 do
      if known[j] ~= own then
        for _, value in ipairs({known[j], stride(weight), ready_of_tenant(model, known[j]), known[j + 1],
            string.format('%.6f', sizes[i] / looked_at)}) do
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
