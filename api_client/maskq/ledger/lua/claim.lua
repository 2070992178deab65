-- A worker takes a job: the next one of a model, or a certain one.
-- ARGV: prefix, model, id or '' (the next one), token, owner, lease_ms,
--       exclusive ('1': this process runs nothing else meanwhile),
--       with_ticket ('1': a ticket is taken off the list for it, or nothing is claimed)
-- → {'claimed', field, value, …} | {'none'} | {'alone', id}
local model, wanted, token, owner = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lease_ms, exclusive, with_ticket = tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1'
local STRIDES = {high = 5, normal = 10, low = 30}  -- 6 : 3 : 1 of the claims, while all have jobs
local ANSWER_KEPT_MS = 60000
local LOOKS = 100  -- expired jobs that one call clears away

-- Start-time fair queueing (Goyal, Vin, Cheng 1996): a level's next start lies its stride after its last
-- one, or now if it had nothing; the earliest is served, the more urgent in a tie. So each gets its share,
-- and who comes back after a pause neither pays for it nor has saved anything up.
local function next_level()
  local queue = key('queue', model)
  local known = redis.call('HMGET', queue, 'time', 'due:high', 'due:normal', 'due:low')
  local time = tonumber(known[1] or 0)
  local best, start = nil, nil
  for i, level in ipairs(LEVELS) do
    if redis.call('EXISTS', turns_key(model, level)) == 1 then
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
  local turns = turns_key(model, level)
  local tenant = redis.call('ZRANGE', turns, 0, 0)[1]
  redis.call('ZADD', turns, redis.call('HINCRBY', key('queue', model), 'turn', 1), tenant)
  local id = redis.call('ZRANGE', ready_key(model, level, tenant), 0, 0)[1]
  return id, {model = model, level = level, tenant = tenant}
end

-- As Celery takes it: the oldest. What is no ticket is Celery's to refuse.
local function take_ticket()
  local list = prefix .. '.' .. model
  local message = redis.call('LINDEX', list, -1)
  if not message or not string.find(message, '"task":"maskq.run"', 1, true) then return false end
  redis.call('RPOP', list)
  return true
end

local function remember(id)
  redis.call('SET', key('claim', token), id, 'PX', ANSWER_KEPT_MS)
end

local function take(id)
  local record = record_key(id)
  local run_timeout_ms = tonumber(redis.call('HGET', record, 'run_timeout_ms'))
  dequeue(id)
  local attempt = redis.call('HINCRBY', record, 'attempt', 1)
  redis.call('HSET', record, 'status', 'running', 'token', token, 'owner', owner,
    'exclusive', exclusive, 'started_ms', integer(now))
  redis.call('HDEL', record, 'not_before_ms')
  redis.call('ZADD', key('leases'), now + lease_ms, id)
  redis.call('ZADD', key('deadlines'), now + run_timeout_ms, id)
  remember(id)
  emit_job(id, 'running', attempt)
  return {'claimed', unpack(redis.call('HGETALL', record))}
end

-- nil: this one is not to be had, look at the next.
local function try(id)
  local known = redis.call('HMGET', record_key(id), 'status', 'queue_deadline_ms', 'alone',
    'not_before_ms')
  if known[1] ~= 'queued' then return nil end
  if now >= tonumber(known[2]) then
    expire_queued(id)
    return nil
  end
  if known[4] and now < tonumber(known[4]) then return nil end
  if known[3] == '1' and exclusive ~= '1' then
    -- The worker first lets its other jobs end. Should it die meanwhile, the sweeper offers it again.
    unready(id, placed(id))
    redis.call('ZADD', key('waiting'), now + 2 * lease_ms, id)
    remember(id)
    return {'alone', id}
  end
  return take(id)
end

-- Sent twice (the answer was lost on the way): the same answer.
local earlier = redis.call('GET', key('claim', token))
if earlier then
  local known = redis.call('HMGET', record_key(earlier), 'status', 'token', 'alone')
  if known[1] == 'running' and known[2] == token then
    return {'claimed', unpack(redis.call('HGETALL', record_key(earlier)))}
  end
  if known[1] == 'queued' and known[3] == '1' and exclusive ~= '1' then return {'alone', earlier} end
  return {'none'}
end
if with_ticket and not take_ticket() then return {'none'} end
if wanted ~= '' then return try(wanted) or {'none'} end
for _ = 1, LOOKS do
  local id, at = next_job()
  if not id then return {'none'} end
  local answer = try(id)
  if answer then return answer end
  if redis.call('EXISTS', record_key(id)) == 0 then  -- deleted by hand: it would be the oldest for ever
    unready(id, at)
    count_queued(at, -1)
  end
end
send_ticket(model)  -- somebody goes on from here
return {'none'}
