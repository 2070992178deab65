-- Shared by every script: how many jobs of a model may run now. Tenants and models multiply, so a call looks at
-- MOST_TENANTS tenants of all models together, and estimates the rest.

local MOST_TENANTS = 1000

-- How many tenants of a model wait for a turn, or are held.
local function waiting_total(model)
  local total = redis.call('SCARD', keys.held_tenants(model))
  for _, weight in ipairs(redis.call('ZRANGE', keys.share_weights(model), 0, -1)) do
    total = total + redis.call('ZCARD', keys.shares(model, weight))
  end
  return total
end

-- How many waiting tenants of each model a call may look at, of `most` in all: {model → {most, total}}.
local function looks_of_models(most)
  local totals, sum, looks = {}, 0, {}
  most = most or MOST_TENANTS
  for _, model in ipairs(known_models()) do
    totals[model] = waiting_total(model)
    sum = sum + totals[model]
  end
  for model, total in pairs(totals) do
    local allowed = sum > most and math.ceil(total * most / sum) or total
    looks[model] = {most = allowed, total = total}
  end
  return looks
end

-- Some of the tenants of a model that may have ready jobs, the same share of each weight; always those
-- without a name.
local function some_waiting(model, look)
  local found, share = {}, look.most / math.max(look.total, 1)
  if share < 1 and redis.call('ZSCORE', keys.shares(model, UNSET_WEIGHT), '') then found[1] = '' end
  for _, weight in ipairs(redis.call('ZRANGE', keys.share_weights(model), 0, -1)) do
    local name = keys.shares(model, weight)
    local most = math.ceil(redis.call('ZCARD', name) * share)
    for _, tenant in ipairs(redis.call('ZRANGE', name, 0, most - 1)) do
      if tenant ~= found[1] then found[#found + 1] = tenant end
    end
  end
  local held = redis.call('SMEMBERS', keys.held_tenants(model))
  for i = 1, math.ceil(#held * share) do found[#found + 1] = held[i] end
  return found
end

-- A tenant's ready jobs of each level, added to `counts`.
local function add_ready(counts, model, tenant)
  local jobs = 0
  for i, list in ipairs(ready_lists(model, tenant)) do
    local first = redis.call('ZRANGE', list, 0, 0, 'WITHSCORES')
    if first[1] then
      local ready = redis.call('ZCARD', list)
      jobs, counts.ready[i] = jobs + ready, counts.ready[i] + ready
      counts.oldest[i] = math.min(counts.oldest[i] or now, tonumber(first[2]))
    end
  end
  local _, free = running_cap(tenant)
  counts.startable = counts.startable + (free and math.max(0, math.min(jobs, free)) or jobs)
  counts.all = counts.all + math.max(jobs, tonumber(
    tenant ~= '' and redis.call('HGET', keys.queue_state(model), 'queued:' .. tenant) or 0))
end

-- The jobs of a model that may run now: {ready, of each level; oldest, when the oldest of each level was
-- submitted or nil; startable, those that would start if there were workers enough: not those above their
-- tenant's cap}. `look`: see looks_of_models. If it leaves tenants out, the counts are estimates: their shares of
-- the queued jobs of the tenants looked at, times all queued jobs of the model.
local function waiting_counts(model, look)
  local counts = {ready = {}, oldest = {}, startable = 0, all = 0}
  for i, _ in ipairs(LEVELS) do counts.ready[i] = 0 end
  for _, tenant in ipairs(some_waiting(model, look)) do add_ready(counts, model, tenant) end
  if look.most >= look.total or counts.all == 0 then return counts end
  local factor = queued_count(model) / counts.all
  for i, jobs in ipairs(counts.ready) do counts.ready[i] = math.floor(jobs * factor + 0.5) end
  counts.startable = math.floor(counts.startable * factor + 0.5)
  return counts
end
