-- Shared by every script: QUEUED and RUNNING. A job enters QUEUED by enqueue and leaves it by dequeue. It
-- enters RUNNING by start_job and leaves it by stop_job. Each is called once for one stay.

-- A job's place in the queue: model, priority, tenant ('' is one, too) and when it was submitted.
local function placement(id)
  local known = redis.call('HMGET', keys.record(id), 'model', 'priority', 'tenant', 'created_ms')
  return {model = known[1], level = known[2], tenant = known[3] or '', created_ms = known[4]}
end

-- Ready jobs run in the order of submission, so a job that runs again keeps its place.
local function make_ready(id)
  local at = placement(id)
  redis.call('ZADD', keys.ready(at.model, at.level, at.tenant), at.created_ms, id)
  -- A tenant that had no jobs waits for one round at most.
  local turn = redis.call('HGET', keys.queue_state(at.model), 'turn') or '0'
  redis.call('ZADD', keys.tenant_rotation(at.model, at.level), 'NX', turn, at.tenant)
  send_ticket(at.model)
end

local function remove_ready(id, at)
  local ready = keys.ready(at.model, at.level, at.tenant)
  redis.call('ZREM', ready, id)
  if redis.call('EXISTS', ready) == 0 then
    redis.call('ZREM', keys.tenant_rotation(at.model, at.level), at.tenant)
  end
end

-- Count a model's queued jobs, and those of one tenant.
local function count_queued(at, by)
  local queue = keys.queue_state(at.model)
  redis.call('HINCRBY', queue, 'queued', by)
  if at.tenant == '' then return end
  local field = 'queued:' .. at.tenant
  if redis.call('HINCRBY', queue, field, by) <= 0 then redis.call('HDEL', queue, field) end
end

-- Put a job into QUEUED, for the first time or again. With a delay it waits without a ticket for the sweeper.
local function enqueue(id, attempt, delay_ms, deadline_ms)
  redis.call('HSET', keys.record(id), 'status', QUEUED)
  count_queued(placement(id), 1)
  if delay_ms > 0 then
    redis.call('HSET', keys.record(id), 'not_before_ms', integer(now + delay_ms))
    redis.call('ZADD', keys.waiting(), now + delay_ms, id)
  else
    redis.call('HDEL', keys.record(id), 'not_before_ms')
    make_ready(id)
  end
  redis.call('ZADD', keys.deadlines(), deadline_ms, id)
  emit_job(id, QUEUED, attempt)
end

-- Take a job out of QUEUED.
local function dequeue(id)
  local at = placement(id)
  redis.call('ZREM', keys.waiting(), id)
  remove_ready(id, at)
  count_queued(at, -1)
  redis.call('ZREM', keys.deadlines(), id)
end

-- Count the jobs of a model that may run now, over all levels and tenants.
local function ready_count(model)
  local count = 0
  for _, level in ipairs(LEVELS) do
    for _, tenant in ipairs(redis.call('ZRANGE', keys.tenant_rotation(model, level), 0, -1)) do
      count = count + redis.call('ZCARD', keys.ready(model, level, tenant))
    end
  end
  return count
end

-- Start-time fair queueing (Goyal, Vin, Cheng 1996). A level starts again its stride after its last start,
-- or now if it had no jobs. The earliest start is served; in a tie, the more urgent level. A level that had
-- no jobs for a while neither loses nor gains by that.
local function next_level(model)
  local queue, due_fields = keys.queue_state(model), {}
  for i, level in ipairs(LEVELS) do due_fields[i] = 'due:' .. level end
  local known = redis.call('HMGET', queue, 'time', unpack(due_fields))
  local time = tonumber(known[1] or 0)
  local best, start = nil, nil
  for i, level in ipairs(LEVELS) do
    if redis.call('EXISTS', keys.tenant_rotation(model, level)) == 1 then
      local due = math.max(tonumber(known[i + 1] or 0), time)
      if not best or due < start then best, start = level, due end
    end
  end
  if best then
    redis.call('HSET', queue, 'time', integer(start), 'due:' .. best, integer(start + STRIDES[best]))
  end
  return best
end

-- The oldest job of the tenant whose turn it is, at that level; and its place.
local function next_job(model)
  local level = next_level(model)
  if not level then return nil end
  local rotation = keys.tenant_rotation(model, level)
  local tenant = redis.call('ZRANGE', rotation, 0, 0)[1]
  redis.call('ZADD', rotation, redis.call('HINCRBY', keys.queue_state(model), 'turn', 1), tenant)
  local id = redis.call('ZRANGE', keys.ready(model, level, tenant), 0, 0)[1]
  return id, {model = model, level = level, tenant = tenant}
end

-- Put a job into RUNNING, out of QUEUED. `holder`: {token, owner, exclusive, lease_ms}.
local function start_job(id, holder)
  local record = keys.record(id)
  local run_timeout_ms = tonumber(redis.call('HGET', record, 'run_timeout_ms'))
  dequeue(id)
  local attempt = redis.call('HINCRBY', record, 'attempt', 1)
  redis.call('HSET', record, 'status', RUNNING, 'token', holder.token, 'owner', holder.owner,
    'exclusive', holder.exclusive, 'started_ms', integer(now))
  redis.call('HDEL', record, 'not_before_ms')
  redis.call('ZADD', keys.leases(), now + holder.lease_ms, id)
  redis.call('ZADD', keys.deadlines(), now + run_timeout_ms, id)
  emit_job(id, RUNNING, attempt)
end

-- Take a job out of RUNNING. Its holder's token stays, so that the holder may send its call twice.
local function stop_job(id)
  redis.call('ZREM', keys.leases(), id)
  redis.call('ZREM', keys.deadlines(), id)
end

-- Take a job's token from its holder: no call of the holder has an effect any more.
local function revoke(id)
  redis.call('HSET', keys.record(id), 'token', '')
end
