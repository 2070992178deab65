-- Store settings of a tenant. Each: '' keeps it, '-' removes it, else its new value.
-- → see tenant_states, of this one
local tenant, weight, max_running, submit_rate, max_queued = unpack(ARGV, 2)
local name = keys.tenant(tenant)
local former = share_settings(tenant)
local former_weight, had_cap = former.weight, former.max_running
local MAX_RESUMED = 10000  -- tickets of a model that one call sends; the sweeper sends the rest

local function store(field, value)
  if value == '-' then redis.call('HDEL', name, field) end
  if value ~= '-' and value ~= '' then redis.call('HSET', name, field, value) end
end

-- What a tenant is behind or ahead, counted in jobs, stays the same: in virtual time it becomes shorter with a
-- larger weight.
local function change_weight(model, to)
  local start = redis.call('ZSCORE', keys.shares(model, former_weight), tenant)
  if not start then return end
  local sum, total = share_totals(model)
  local time, ratio = total > 0 and sum / total or 0, former_weight / to
  local new_start = math.max(math.floor(time + (start - time) * ratio + 0.5), 0)
  redis.call('ZREM', keys.shares(model, former_weight), tenant)
  redis.call('ZADD', keys.shares(model, to), integer(new_start), tenant)
  note_first_start(model, former_weight)
  note_first_start(model, to)
  set_share_totals(model, sum - former_weight * start + to * new_start, total - former_weight + to)
end

-- Running jobs are counted only while the tenant has a cap, so those that run already are counted now.
local function count_running_jobs()
  redis.call('DEL', keys.tenant_running(tenant))
  for _, id in ipairs(redis.call('ZRANGE', keys.leases(), 0, -1)) do
    if redis.call('HGET', keys.record(id), 'tenant') == tenant then
      redis.call('SADD', keys.tenant_running(tenant), id)
      redis.call('HSET', keys.record(id), 'capped', '1')
    end
  end
end

store('weight', weight)
store('max_running', max_running)
store('submit_rate', submit_rate)
store('max_queued', max_queued)
if submit_rate ~= '' then redis.call('HDEL', name, 'next_submit_ms') end
local settings = share_settings(tenant)
if settings.weight ~= former_weight then
  for _, model in ipairs(known_models()) do change_weight(model, settings.weight) end
end
if max_running ~= '' and settings.max_running then
  count_running_jobs()
  local _, free = running_cap(tenant)
  if had_cap and free > 0 then resume_tenant(tenant, 1) end
elseif max_running ~= '' then
  redis.call('DEL', keys.tenant_running(tenant))
  if had_cap then resume_tenant(tenant, MAX_RESUMED) end
end
if redis.call('EXISTS', name) == 1 then
  redis.call('SADD', keys.tenants(), tenant)
else
  redis.call('SREM', keys.tenants(), tenant)
end
return tenant_states({tenant})[1]
