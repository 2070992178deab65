-- Claim a job for a worker: the next one of a model, or `wanted`.
--   wanted: id or ''; exclusive: '1' if this process runs nothing else meanwhile;
--   with_ticket: '1' to take a ticket off the list first, and to claim nothing if there is none
-- → {'claimed', field, value, …} | {'none'} | {'alone', id}
local model, wanted, token, owner, lease_ms, exclusive, with_ticket = unpack(ARGV, 2)
lease_ms = tonumber(lease_ms)
local ANSWER_KEPT_MS = 60000
local MAX_SKIPPED = 100  -- expired jobs that one call removes from the queue

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

local function claimed(id)
  return {'claimed', unpack(redis.call('HGETALL', keys.record(id)))}
end

-- Returns nil if the job cannot run now. `turn`: its tenant's, or nil if it is claimed by name.
local function try_claim(id, at, turn, is_capped)
  local known = redis.call('HMGET', keys.record(id), 'status', 'queue_deadline_ms', 'alone',
    'not_before_ms', 'run_timeout_ms', 'webhook', 'source', 'traceparent', 'tracestate')
  if known[1] ~= QUEUED then return nil end
  if now >= tonumber(known[2]) then
    expire_queued(id)
    return nil
  end
  if known[4] and now < tonumber(known[4]) then return nil end
  if known[3] == '1' and exclusive ~= '1' then
    -- The worker first finishes its other jobs. If it dies meanwhile, the sweeper makes the job ready again.
    remove_ready(id, at, turn)
    redis.call('ZADD', keys.waiting(), now + 2 * lease_ms, id)
    remember_answer(id)
    return {'alone', id}
  end
  start_job(id, at, {token = token, owner = owner, exclusive = exclusive, lease_ms = lease_ms}, turn,
    {not_before_ms = known[4], run_timeout_ms = known[5], webhook = known[6],
      source = known[7], traceparent = known[8], tracestate = known[9], is_capped = is_capped})
  remember_answer(id)
  return claimed(id)
end

-- The next job of the tenant whose turn it is. Returns nil if it cannot run: the next turn may find another.
local function take_turn(turn)
  local most, free = running_cap(turn.tenant)
  if most and free <= 0 then
    hold_tenant(model, turn)
    return nil
  end
  local id = next_job(model, turn)
  local at = {model = model, level = turn.level, tenant = turn.tenant}
  if not id then
    leave_shares(model, turn)
    redis.call('DEL', keys.tenant_levels(turn.tenant, model))
    return nil
  end
  local answer = try_claim(id, at, turn, most)
  if answer and most then continue_tenant(model, turn.tenant) end
  if not answer and remove_ready(id, at, nil) then  -- deleted by hand: it would stay the oldest
    count_queued(at, -1)
  end
  return answer
end

-- Sent twice (the answer was lost on the way): the same answer.
local earlier = redis.call('GET', keys.claim(token))
if earlier then
  local known = redis.call('HMGET', keys.record(earlier), 'status', 'token', 'alone')
  if known[1] == RUNNING and known[2] == token then return claimed(earlier) end
  if known[1] == QUEUED and known[3] == '1' and exclusive ~= '1' then return {'alone', earlier} end
  return {'none'}
end
if with_ticket == '1' and not take_ticket() then return {'none'} end
if wanted ~= '' then
  local at = placement(wanted)
  local most, free = running_cap(at.tenant)
  return (not most or free > 0) and try_claim(wanted, at, nil, most) or {'none'}
end
for _ = 1, MAX_SKIPPED do
  local turn = next_turn(model)
  if not turn and adopt_former_turns(model) > 0 then turn = next_turn(model) end
  if not turn then
    -- No job may start, so the tickets that are left are of held tenants. Each would cost a worker a claim.
    if redis.call('EXISTS', keys.held_tenants(model)) == 1 then redis.call('DEL', keys.queue(model)) end
    return {'none'}
  end
  local answer = take_turn(turn)
  if answer then return answer end
end
send_ticket(model)  -- another claim continues here
return {'none'}
