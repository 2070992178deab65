-- Claim a job for a worker: the next one of a model, or `wanted`.
--   wanted: id or ''; exclusive: '1' if this process runs nothing else meanwhile;
--   with_ticket: '1' to take a ticket off the list first, and to claim nothing if there is none
-- → {'claimed', field, value, …} | {'none'} | {'alone', id}
local model, wanted, token, owner, lease_ms, exclusive, with_ticket = unpack(ARGV, 2)
lease_ms = tonumber(lease_ms)
local ANSWER_KEPT_MS = 60000
local MAX_SKIPPED = 100  -- expired jobs that one call removes from the queue

-- Start-time fair queueing (Goyal, Vin, Cheng 1996). A level starts again its stride after its last start,
-- or now if it had no jobs. The earliest start is served; in a tie, the more urgent level. A level that had
-- no jobs for a while neither loses nor gains by that.
local function next_level()
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
local function next_job()
  local level = next_level()
  if not level then return nil end
  local rotation = keys.tenant_rotation(model, level)
  local tenant = redis.call('ZRANGE', rotation, 0, 0)[1]
  redis.call('ZADD', rotation, redis.call('HINCRBY', keys.queue_state(model), 'turn', 1), tenant)
  local id = redis.call('ZRANGE', keys.ready(model, level, tenant), 0, 0)[1]
  return id, {model = model, level = level, tenant = tenant}
end

-- The oldest, as Celery takes it. Celery refuses messages that are not tickets.
local function take_ticket()
  local list = keys.queue(model)
  local message = redis.call('LINDEX', list, -1)
  if not message or not string.find(message, '"task":"' .. TASK_RUN .. '"', 1, true) then return false end
  redis.call('RPOP', list)
  return true
end

local function remember_answer(id)
  redis.call('SET', keys.claim(token), id, 'PX', ANSWER_KEPT_MS)
end

local function start(id)
  local record = keys.record(id)
  local run_timeout_ms = tonumber(redis.call('HGET', record, 'run_timeout_ms'))
  dequeue(id)
  local attempt = redis.call('HINCRBY', record, 'attempt', 1)
  redis.call('HSET', record, 'status', RUNNING, 'token', token, 'owner', owner,
    'exclusive', exclusive, 'started_ms', integer(now))
  redis.call('HDEL', record, 'not_before_ms')
  redis.call('ZADD', keys.leases(), now + lease_ms, id)
  redis.call('ZADD', keys.deadlines(), now + run_timeout_ms, id)
  remember_answer(id)
  emit_job(id, RUNNING, attempt)
  return {'claimed', unpack(redis.call('HGETALL', record))}
end

-- Returns nil if the job cannot run now.
local function try_claim(id)
  local known = redis.call('HMGET', keys.record(id), 'status', 'queue_deadline_ms', 'alone',
    'not_before_ms')
  if known[1] ~= QUEUED then return nil end
  if now >= tonumber(known[2]) then
    expire_queued(id)
    return nil
  end
  if known[4] and now < tonumber(known[4]) then return nil end
  if known[3] == '1' and exclusive ~= '1' then
    -- The worker first finishes its other jobs. If it dies meanwhile, the sweeper makes the job ready again.
    remove_ready(id, placement(id))
    redis.call('ZADD', keys.waiting(), now + 2 * lease_ms, id)
    remember_answer(id)
    return {'alone', id}
  end
  return start(id)
end

-- Sent twice (the answer was lost on the way): the same answer.
local earlier = redis.call('GET', keys.claim(token))
if earlier then
  local known = redis.call('HMGET', keys.record(earlier), 'status', 'token', 'alone')
  if known[1] == RUNNING and known[2] == token then
    return {'claimed', unpack(redis.call('HGETALL', keys.record(earlier)))}
  end
  if known[1] == QUEUED and known[3] == '1' and exclusive ~= '1' then return {'alone', earlier} end
  return {'none'}
end
if with_ticket == '1' and not take_ticket() then return {'none'} end
if wanted ~= '' then return try_claim(wanted) or {'none'} end
for _ = 1, MAX_SKIPPED do
  local id, at = next_job()
  if not id then return {'none'} end
  local answer = try_claim(id)
  if answer then return answer end
  if redis.call('EXISTS', keys.record(id)) == 0 then  -- deleted by hand: it would stay the oldest
    remove_ready(id, at)
    count_queued(at, -1)
  end
end
send_ticket(model)  -- another claim continues here
return {'none'}
