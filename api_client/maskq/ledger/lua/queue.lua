-- Shared by every script: QUEUED and RUNNING. A job enters QUEUED by enqueue and leaves it by dequeue. It
-- enters RUNNING by start_job and leaves it by stop_job. Each is called once for one stay.

-- A job's place in the queue: model, priority, tenant ('' is one, too) and when it was submitted.
local function placement(id)
  local known = redis.call('HMGET', keys.record(id), 'model', 'priority', 'tenant', 'created_ms')
  return {model = known[1], level = known[2], tenant = known[3] or '', created_ms = known[4]}
end

-- A tenant's ready jobs of each level.
local function ready_lists(model, tenant)
  local lists = {}
  for i, level in ipairs(LEVELS) do lists[i] = keys.ready(model, level, tenant) end
  return lists
end

local function ready_of_tenant(model, tenant)
  local count = 0
  for _, list in ipairs(ready_lists(model, tenant)) do count = count + redis.call('ZCARD', list) end
  return count
end

-- A tenant's jobs run in the order of submission, so a job that runs again keeps its place.
-- Each ready job has a ticket on the list. A tenant with a cap has one ticket for all its ready jobs: each start
-- sends the next (continue_tenant). So a backlog that may not start sends no workers to the ledger in vain.
local function make_ready(id, at, settings)
  settings = settings or share_settings(at.tenant)
  redis.call('ZADD', keys.ready(at.model, at.level, at.tenant), at.created_ms, id)
  if not join_shares(at.model, at.tenant, settings) then return end
  if not settings.max_running or ready_of_tenant(at.model, at.tenant) == 1 then send_ticket(at.model) end
end

-- Take a job from those that may run now. `turn`: its tenant's, which it uses; else nil.
-- Returns false if it was not among them.
local function remove_ready(id, at, turn)
  if redis.call('ZREM', keys.ready(at.model, at.level, at.tenant), id) == 0 then return false end
  if turn then
    use_turn(at.model, turn)
    redis.call('HSET', keys.tenant_levels(at.tenant, at.model), 'time', integer(turn.level_start),
      'due:' .. at.level, integer(turn.level_start + STRIDES[at.level]))
  end
  return true
end

-- Count a model's queued jobs, and those of one tenant.
local function count_queued(at, by)
  local queue = keys.queue_state(at.model)
  redis.call('HINCRBY', queue, 'queued', by)
  if at.tenant == '' then return end
  local field = 'queued:' .. at.tenant
  if redis.call('HINCRBY', queue, field, by) <= 0 then redis.call('HDEL', queue, field) end
end

local function queued_count(model)
  return tonumber(redis.call('HGET', keys.queue_state(model), 'queued') or 0)
end

-- Put a job into QUEUED, for the first time or again. With a delay it waits without a ticket for the sweeper.
-- `settings`: its tenant's, and `known`: see emit_job; both if the caller has them.
local function enqueue(id, at, attempt, delay_ms, deadline_ms, settings, known)
  count_queued(at, 1)
  if delay_ms > 0 then
    redis.call('HSET', keys.record(id), 'not_before_ms', integer(now + delay_ms))
    redis.call('ZADD', keys.waiting(), now + delay_ms, id)
  else
    make_ready(id, at, settings)
  end
  redis.call('ZADD', keys.deadlines(), deadline_ms, id)
  emit_job(id, QUEUED, attempt, nil, known)
end

-- Take a job out of QUEUED. `turn`: see remove_ready.
local function dequeue(id, at, turn)
  if not remove_ready(id, at, turn) then redis.call('ZREM', keys.waiting(), id) end
  count_queued(at, -1)
  redis.call('ZREM', keys.deadlines(), id)
end

-- Start-time fair queueing (Goyal, Vin, Cheng 1996) between a tenant's levels. A level starts again its
-- stride after its last start, or now if it had no jobs. The earliest start is served; in a tie, the more
-- urgent level. A level that had no jobs for a while neither loses nor gains by that.
-- Returns the oldest job of that level, or nil if the tenant has no ready jobs. Completes `turn`.
local function next_job(model, turn)
  local state, due_fields = keys.tenant_levels(turn.tenant, model), {}
  for i, level in ipairs(LEVELS) do due_fields[i] = 'due:' .. level end
  local known = redis.call('HMGET', state, 'time', unpack(due_fields))
  local time, id = tonumber(known[1] or 0), nil
  for i, list in ipairs(ready_lists(model, turn.tenant)) do
    local oldest = redis.call('ZRANGE', list, 0, 0)[1]
    local due = math.max(tonumber(known[i + 1] or 0), time)
    if oldest and (not id or due < turn.level_start) then
      id, turn.level, turn.level_start = oldest, LEVELS[i], due
    end
  end
  return id
end

-- A tenant's running jobs are counted while it has a cap.
-- Returns the cap or nil, and how many further jobs the tenant may start now or nil.
local function running_cap(tenant)
  local most = tenant ~= '' and tonumber(redis.call('HGET', keys.tenant(tenant), 'max_running') or nil)
  if not most then return nil, nil end
  return most, most - redis.call('SCARD', keys.tenant_running(tenant))
end

-- A tenant runs as many jobs as it may: none of its jobs starts until one of them stops.
local function hold_tenant(model, turn)
  leave_shares(model, turn)
  redis.call('SADD', keys.held_tenants(model), turn.tenant)
end

-- Send the next ticket of a tenant with a cap, if it may start another job of the model.
local function continue_tenant(model, tenant)
  local _, free = running_cap(tenant)
  if free > 0 and ready_of_tenant(model, tenant) > 0 then send_ticket(model) end
end

-- Let a tenant go on in all models, since it may start a job again. `most`: tickets for each model.
local function resume_tenant(tenant, most)
  for _, model in ipairs(known_models()) do
    redis.call('SREM', keys.held_tenants(model), tenant)
    local jobs = ready_of_tenant(model, tenant)
    if jobs > 0 then join_shares(model, tenant) end
    for _ = 1, math.min(jobs, most) do send_ticket(model) end
  end
end

-- Count the tickets that a model needs: see make_ready.
local function ready_count(model)
  local count = 0
  for _, tenant in ipairs((waiting_tenants(model))) do
    local jobs, _, free = ready_of_tenant(model, tenant), running_cap(tenant)
    if free then jobs = math.min(jobs, math.max(free, 0), 1) end
    count = count + jobs
  end
  return count
end

-- Put a job into RUNNING, out of QUEUED. `holder`: {token, owner, exclusive, lease_ms}; `turn`: its tenant's,
-- or nil if it was claimed by name; `known`: fields of the record.
local function start_job(id, at, holder, turn, known)
  local record = keys.record(id)
  dequeue(id, at, turn)
  local attempt = redis.call('HINCRBY', record, 'attempt', 1)
  redis.call('HSET', record, 'status', RUNNING, 'token', holder.token, 'owner', holder.owner,
    'exclusive', holder.exclusive, 'started_ms', integer(now))
  if known.not_before_ms then redis.call('HDEL', record, 'not_before_ms') end
  if known.is_capped then
    redis.call('HSET', record, 'capped', '1')
    redis.call('SADD', keys.tenant_running(at.tenant), id)
  end
  redis.call('ZADD', keys.leases(), now + holder.lease_ms, id)
  redis.call('ZADD', keys.deadlines(), now + known.run_timeout_ms, id)
  emit_job(id, RUNNING, attempt, nil,
    {known.webhook, at.tenant ~= '' and at.tenant, known.source, known.traceparent, known.tracestate})
end

-- Take a job out of RUNNING. Its holder's token stays, so that the holder may send its call twice.
-- `capped`: of the record; '1' if the job counts against its tenant's cap.
local function stop_job(id, tenant, capped)
  redis.call('ZREM', keys.leases(), id)
  redis.call('ZREM', keys.deadlines(), id)
  if capped ~= '1' or redis.call('SREM', keys.tenant_running(tenant), id) == 0 then return end
  local _, free = running_cap(tenant)
  if free == 1 then resume_tenant(tenant, 1) end  -- before, it could start none
end

-- Take a job's token from its holder: no call of the holder has an effect any more.
local function revoke(id)
  redis.call('HSET', keys.record(id), 'token', '')
end

-- How many jobs run, by a field of their records: {value → count}. It looks at `most` jobs; of more, the counts are
-- estimates from those whose leases end first.
local MOST_RUNNING = 4000
local function running_by(field, most)
  local running, total = {}, redis.call('ZCARD', keys.leases())
  local seen = redis.call('ZRANGE', keys.leases(), 0, (most or MOST_RUNNING) - 1)
  for _, id in ipairs(seen) do
    local value = redis.call('HGET', keys.record(id), field)
    if value then running[value] = (running[value] or 0) + 1 end
  end
  if total > #seen then
    for value, count in pairs(running) do running[value] = math.floor(count * total / #seen + 0.5) end
  end
  return running
end

-- How many jobs of each of these tenants are queued: {tenant → count}.
local function queued_of_tenants(tenants)
  local fields, queued, AT_ONCE = {}, {}, 1000
  for i, tenant in ipairs(tenants) do fields[i], queued[tenant] = 'queued:' .. tenant, 0 end
  for _, model in ipairs(known_models()) do
    for first = 1, #fields, AT_ONCE do
      local last = math.min(first + AT_ONCE - 1, #fields)
      local counts = redis.call('HMGET', keys.queue_state(model), unpack(fields, first, last))
      for i, count in ipairs(counts) do
        local tenant = tenants[first + i - 1]
        queued[tenant] = queued[tenant] + tonumber(count or 0)
      end
    end
  end
  return queued
end

-- {{tenant, its queued jobs, its running jobs, setting, value, …}, …}
local function tenant_states(tenants)
  local queued, running, rows = queued_of_tenants(tenants), running_by('tenant'), {}
  for i, tenant in ipairs(tenants) do
    rows[i] = {tenant, queued[tenant], running[tenant] or 0, unpack(redis.call('HGETALL', keys.tenant(tenant)))}
  end
  return rows
end
