-- What each model has to do, and numbers of the whole deployment.
--   choosers: JSON, see default_model
-- → {now, default or '', who chose it, {number, …} of the deployment,
--    {name, about (JSON), queued, running, live workers, oldest, ready jobs of each level …} of each model}
local choosers = unpack(ARGV, 2)

local running, looks = running_by('model'), looks_of_models()

local function queue_of(model)
  local counts, oldest = waiting_counts(model, looks[model]), nil
  for _, first in pairs(counts.oldest) do oldest = math.min(oldest or first, first) end
  return {model, redis.call('HGET', keys.models(), model),
    queued_count(model), running[model] or 0, live_count(model),
    oldest and integer(oldest) or '', unpack(counts.ready)}
end

local default, choice = default_model(choosers)
local totals = {redis.call('ZCARD', keys.leases()), redis.call('ZCARD', keys.waiting()), redis.call('ZCARD', keys.created()),
  redis.call('SCARD', keys.tenants()), redis.call('ZCARD', keys.deliveries_due()),
  redis.call('ZCOUNT', keys.deliveries_due(), '-inf', integer(now)),
  redis.call('HGET', keys.sweeper(), 'swept_ms') or ''}
local answer = {integer(now), default or '', choice, totals}
for _, model in ipairs(known_models()) do answer[#answer + 1] = queue_of(model) end
return answer
