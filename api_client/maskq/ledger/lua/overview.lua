-- What each model has to do, and numbers of the whole deployment.
--   choosers: JSON, see default_model
-- → {now, default or '', who chose it, {number, …} of the deployment,
--    {name, about (JSON), queued, running, live workers, oldest, ready jobs of each level …} of each model}
local choosers = unpack(ARGV, 2)

-- Add a tenant's ready jobs to `ready`, by level. Returns when the oldest of them was submitted, or nil.
local function add_ready(ready, model, tenant)
  local oldest = nil
  for i, list in ipairs(ready_lists(model, tenant)) do
    ready[i] = ready[i] + redis.call('ZCARD', list)
    local first = tonumber(redis.call('ZRANGE', list, 0, 0, 'WITHSCORES')[2])
    if first and (not oldest or first < oldest) then oldest = first end
  end
  return oldest
end

-- The tenants with queued jobs of a model; '' is one, too.
local function queued_tenants(state)
  local tenants = {''}
  for field, _ in pairs(state) do tenants[#tenants + 1] = string.match(field, '^queued:(.+)$') end
  return tenants
end

local function queue_of(model, running)
  local ready, oldest, state = {}, nil, by_name(redis.call('HGETALL', keys.queue_state(model)))
  for i, _ in ipairs(LEVELS) do ready[i] = 0 end
  for _, tenant in ipairs(queued_tenants(state)) do
    local first = add_ready(ready, model, tenant)
    if first and (not oldest or first < oldest) then oldest = first end
  end
  return {model, redis.call('HGET', keys.models(), model), state.queued or '0', running or 0,
    #live_workers(model), oldest and integer(oldest) or '', unpack(ready)}
end

local running = running_of_models(4000)
local default, choice = default_model(choosers)
local totals = {redis.call('ZCARD', keys.leases()), redis.call('ZCARD', keys.waiting()), redis.call('ZCARD', keys.created()),
  redis.call('SCARD', keys.tenants()), redis.call('ZCARD', keys.deliveries_due()),
  redis.call('ZCOUNT', keys.deliveries_due(), '-inf', integer(now)),
  redis.call('HGET', keys.sweeper(), 'swept_ms') or ''}
local answer = {integer(now), default or '', choice, totals}
for _, model in ipairs(known_models()) do answer[#answer + 1] = queue_of(model, running[model]) end
return answer
