-- Shared by every script: fair shares. Which tenant of a model starts the next job: earliest eligible virtual
-- deadline first (Stoica, Abdel-Wahab 1995). docs/decisions/fair-shares.md says why.
-- A tenant with ready jobs has a start, in virtual time. A job that it starts moves that by its stride,
-- SHARE_UNIT / weight. The virtual time is the mean of all starts by weight; who is not ahead of it is
-- eligible. Tenants of one weight wait in one sorted set: its first has their earliest start and deadline.
-- A tenant without ready jobs leaves when it would be its turn. If it has a job again before that, it goes on
-- where it was, so that coming and going neither gains nor loses.

-- A multiple of 1 to 16, so that these weights have whole strides.
local SHARE_UNIT = 7207200
local UNSET_WEIGHT = '1'

local function stride(weight)
  return math.floor(SHARE_UNIT / weight + 0.5)
end

-- A tenant's weight and max_running, as `maskq tenants set` stored them. Jobs without a tenant have none.
local function share_settings(tenant)
  if tenant == '' then return {weight = UNSET_WEIGHT} end
  local known = redis.call('HMGET', keys.tenant(tenant), 'weight', 'max_running')
  return {weight = known[1] or UNSET_WEIGHT, max_running = tonumber(known[2] or nil)}
end

-- Of the tenants that wait: the sum of weight times start, and the sum of weights.
local function share_totals(model)
  local known = redis.call('HMGET', keys.queue_state(model), 'share_sum', 'share_weight')
  return tonumber(known[1] or 0), tonumber(known[2] or 0)
end

local function set_share_totals(model, sum, weight)
  redis.call('HSET', keys.queue_state(model), 'share_sum', integer(sum), 'share_weight', integer(weight))
end

-- Note the earliest start among the tenants of a weight.
local function note_first_start(model, weight)
  local first = redis.call('ZRANGE', keys.shares(model, weight), 0, 0, 'WITHSCORES')
  if first[1] then
    redis.call('ZADD', keys.share_weights(model), first[2], weight)
  else
    redis.call('ZREM', keys.share_weights(model), weight)
  end
end

local function is_held(model, tenant)
  return redis.call('SISMEMBER', keys.held_tenants(model), tenant) == 1
end

-- Let a tenant with ready jobs wait for its turn. Returns false if it is held, because it runs as many jobs
-- as it may.
local function join_shares(model, tenant, settings)
  settings = settings or share_settings(tenant)
  if settings.max_running and is_held(model, tenant) then return false end
  local weight = settings.weight
  if redis.call('ZSCORE', keys.shares(model, weight), tenant) then return true end
  local sum, total = share_totals(model)
  local start = total > 0 and math.floor(sum / total) or 0
  redis.call('ZADD', keys.shares(model, weight), integer(start), tenant)
  note_first_start(model, weight)
  set_share_totals(model, sum + weight * start, total + weight)
  return true
end

-- A tenant whose turn it is has no ready jobs, or is held.
local function leave_shares(model, turn)
  redis.call('ZREM', keys.shares(model, turn.weight), turn.tenant)
  note_first_start(model, turn.weight)
  local total = turn.total - turn.weight
  if total > 0 then
    set_share_totals(model, turn.sum - turn.weight * turn.start, total)
  else
    redis.call('HDEL', keys.queue_state(model), 'share_sum', 'share_weight')
  end
end

-- A tenant used its turn. If it waits alone, the virtual time would move with its start: nothing changes.
local function use_turn(model, turn)
  if turn.total == tonumber(turn.weight) then return end
  local length = stride(turn.weight)
  redis.call('ZADD', keys.shares(model, turn.weight), integer(turn.start + length), turn.tenant)
  note_first_start(model, turn.weight)
  set_share_totals(model, turn.sum + turn.weight * length, turn.total)
end

-- Whose turn it is: {tenant, weight, start, sum, total}, or nil if no tenant waits.
local function next_turn(model)
  local sum, total = share_totals(model)
  local firsts = redis.call('ZRANGE', keys.share_weights(model), 0, -1, 'WITHSCORES')
  local turn, earliest = nil, nil
  for i = 1, #firsts, 2 do
    local weight, start = firsts[i], tonumber(firsts[i + 1])
    local deadline = start + stride(weight)
    -- They come by their starts, and the first is never ahead of the mean.
    if not turn or (start <= sum / total and deadline < earliest) then
      turn, earliest = {weight = weight, start = start, sum = sum, total = total}, deadline
    end
  end
  if turn then turn.tenant = redis.call('ZRANGE', keys.shares(model, turn.weight), 0, 0)[1] end
  return turn
end

-- Let tenants wait for their turns whose jobs a process of version 0.1 queued: it lists them by level.
-- Returns how many.
local function adopt_former_turns(model)
  local adopted = 0
  for _, level in ipairs(LEVELS) do
    local former = keys.former_turns(model, level)
    for _, tenant in ipairs(redis.call('ZRANGE', former, 0, -1)) do
      local weight = share_settings(tenant).weight
      if redis.call('EXISTS', keys.ready(model, level, tenant)) == 0 then
        redis.call('ZREM', former, tenant)
      elseif not redis.call('ZSCORE', keys.shares(model, weight), tenant)
        and join_shares(model, tenant) then
        adopted = adopted + 1
      end
    end
  end
  return adopted
end

-- Tenants of a model that may have ready jobs: those that wait for a turn, then those that are held.
local function waiting_tenants(model)
  local found = {}
  for _, weight in ipairs(redis.call('ZRANGE', keys.share_weights(model), 0, -1)) do
    for _, tenant in ipairs(redis.call('ZRANGE', keys.shares(model, weight), 0, -1)) do
      found[#found + 1] = tenant
    end
  end
  return found, redis.call('SMEMBERS', keys.held_tenants(model))
end
