-- What nobody else will do: leases that ran out, deadlines, back-offs that passed, lost tickets.
-- Every sweeper of the deployment may call it at any rate; one call in MIN_GAP_MS does the work.
-- ARGV: prefix, lease_ms, cap, '1': this server has not swept before (it has just started, or just
--       became the primary) | '0', how long events are kept (ms)
-- → {swept (0 | 1), reaped, timed out or expired, sent after back-off, sent again, answers sent again}
local MIN_GAP_MS, GRACE_MS, ANSWER_MS = 400, 5000, 15000
local ANSWERS = 20  -- sent again: what Celery cannot be told in five minutes, it never can
-- Sweepers come by every second. A gap that short is no outage even where half a lease is shorter, or
-- every sweep would extend all leases and none would ever run out.
local OUTAGE_MS = 2500
local lease_ms, cap, is_new = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local state = key('sweeper')
local gap = now - tonumber(redis.call('HGET', state, 'swept_ms') or 0)
if gap < 0 then gap = now end  -- Redis' clock was set back: the same as a long gap, or sweeps would stop
if gap < MIN_GAP_MS and not is_new then return {0, 0, 0, 0, 0, 0} end
redis.call('HSET', state, 'swept_ms', integer(now))

-- Redis was away, or every sweeper was: the holders could not renew either. One lease of grace, once.
if gap > math.max(lease_ms / 2, OUTAGE_MS) or is_new then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', integer(now + lease_ms))) do
    redis.call('ZADD', key('leases'), now + lease_ms, id)
  end
end

-- The holder's process died, or lost its way to Redis. Only a death alone is charged: what died in
-- company of others is run again alone, so that the guilty one is found and the others are not blamed.
local function reap(id)
  local known = redis.call('HMGET', record_key(id), 'exclusive', 'attempt')
  redis.call('HSET', record_key(id), 'alone', '1')
  leave_orphans(id)
  retry_or_fail(id, known[1] == '1' and 1 or 0, 0, failure('worker_lost',
    'its worker died or went silent during attempt ' .. known[2]))
end

local reaped = redis.call('ZRANGEBYSCORE', key('leases'), '-inf', integer(now), 'LIMIT', 0, cap)
for _, id in ipairs(reaped) do
  if redis.call('HGET', record_key(id), 'status') == 'running' then
    reap(id)
  else
    redis.call('ZREM', key('leases'), id)
  end
end

local due = redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', integer(now), 'LIMIT', 0, cap)
for _, id in ipairs(due) do
  local status = redis.call('HGET', record_key(id), 'status')
  if status == 'queued' then
    expire_queued(id)
  elseif status == 'running' then
    leave_orphans(id)
    end_job(id, 'failed', 'error', failure('timeout', 'did not end within its run_timeout_s'))
    redis.call('HSET', record_key(id), 'token', '')
  else
    redis.call('ZREM', key('deadlines'), id)
  end
end

local ready = redis.call('ZRANGEBYSCORE', key('waiting'), '-inf', integer(now), 'LIMIT', 0, cap)
for _, id in ipairs(ready) do
  redis.call('ZREM', key('waiting'), id)
  if redis.call('HGET', record_key(id), 'status') == 'queued' then
    redis.call('HDEL', record_key(id), 'not_before_ms')
    make_ready(id)
  end
end

-- Jobs of a model that may run now, over all levels and tenants.
local function ready_count(model)
  local count = 0
  for _, level in ipairs(LEVELS) do
    for _, tenant in ipairs(redis.call('ZRANGE', turns_key(model, level), 0, -1)) do
      count = count + redis.call('ZCARD', ready_key(model, level, tenant))
    end
  end
  return count
end

-- A ticket is lost when a job lacks one now and lacked it GRACE_MS ago: one that was just taken off the
-- list has long made its claim. The list never grows beyond the jobs, so a backlog is not amplified.
local function send_lost_tickets(model)
  local queue = key('queue', model)
  local known = redis.call('HMGET', queue, 'missing', 'marked_ms')
  local age = now - tonumber(known[2] or 0)
  if age >= 0 and age < GRACE_MS then return 0 end
  local missing = math.max(ready_count(model) - redis.call('LLEN', prefix .. '.' .. model), 0)
  local lost = math.min(missing, tonumber(known[1] or 0), cap)
  for _ = 1, lost do send_ticket(model) end
  redis.call('HSET', queue, 'missing', missing - lost, 'marked_ms', integer(now))
  return lost
end

local again = 0
for _, model in ipairs(redis.call('HKEYS', key('models'))) do
  again = again + send_lost_tickets(model)
end

-- An empty intake list proves that the message was taken; its task has then had ANSWER_MS to say so.
local answers = {}
if redis.call('LLEN', prefix) == 0 then
  answers = redis.call('ZRANGEBYSCORE', key('answers'), '-inf', integer(now - ANSWER_MS), 'LIMIT', 0, cap)
end
for _, id in ipairs(answers) do
  redis.call('ZREM', key('answers'), id)
  local asked = redis.call('HEXISTS', record_key(id), 'celery_head') == 1
  if asked and redis.call('HINCRBY', record_key(id), 'answers', 1) <= ANSWERS then send_answer(id) end
end

redis.call('XTRIM', key('events'), 'MINID', '~', integer(now - tonumber(ARGV[5])))

-- Records expire by themselves; the sets that list them are trimmed here.
for _, listed in ipairs({{'created', 'job'}, {'ended', 'job'}, {'deliveries', 'delivery'}}) do
  local name = key(listed[1])
  for _, id in ipairs(redis.call('ZRANGE', name, 0, cap - 1)) do
    if redis.call('EXISTS', key(listed[2], id)) == 1 then break end
    redis.call('ZREM', name, id)
  end
end
return {1, #reaped, #due, #ready, again, #answers}
