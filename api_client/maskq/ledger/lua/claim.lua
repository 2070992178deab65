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
  start_job(id, {token = token, owner = owner, exclusive = exclusive, lease_ms = lease_ms})
  remember_answer(id)
  return claimed(id)
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
if wanted ~= '' then return try_claim(wanted) or {'none'} end
for _ = 1, MAX_SKIPPED do
  local id, at = next_job(model)
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
