-- What nobody else will do: leases that ran out, deadlines, back-offs that passed, lost messages.
-- Every sweeper of the deployment may call it at any rate; one call in MIN_GAP_MS does the work.
-- ARGV: prefix, lease_ms, cap, redis run id
-- → {swept (0 | 1), reaped, timed out or expired, sent after back-off, sent again, answers sent again}
local MIN_GAP_MS, GRACE_MS, ANSWER_MS = 400, 5000, 15000
-- Sweepers come by every second. A gap that short is no outage even where half a lease is shorter, or
-- every sweep would extend all leases and none would ever run out.
local OUTAGE_MS = 2500
local lease_ms, cap, run_id = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local state = key('sweeper')
local last = redis.call('HMGET', state, 'swept_ms', 'run_id')
local gap = now - tonumber(last[1] or 0)
if gap < 0 then gap = now end  -- Redis' clock was set back: the same as a long gap, or sweeps would stop
if gap < MIN_GAP_MS and last[2] == run_id then return {0, 0, 0, 0, 0, 0} end
redis.call('HSET', state, 'swept_ms', integer(now), 'run_id', run_id)

-- Redis was away, or every sweeper was: the holders could not renew either. One lease of grace, once.
if gap > math.max(lease_ms / 2, OUTAGE_MS) or last[2] ~= run_id then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', integer(now + lease_ms))) do
    redis.call('ZADD', key('leases'), now + lease_ms, id)
  end
end

-- The holder's process died, or lost its way to Redis. Only a death alone is charged: what died in
-- company of others is run again alone, so that the guilty one is found and the others are not blamed.
local function reap(id)
  local known = redis.call('HMGET', record_key(id), 'exclusive', 'attempt')
  redis.call('HSET', record_key(id), 'alone', '1')
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
    end_job(id, 'failed', 'error', failure('timeout', 'did not end within its run_timeout_s'))
    redis.call('HSET', record_key(id), 'token', '')
  else
    redis.call('ZREM', key('deadlines'), id)
  end
end

-- A message is gone when one sent later was claimed, or the list was seen empty, more than GRACE_MS ago.
-- So a backlog, or a queue without workers, is never sent twice.
local function lost_messages(queue)
  local name = key('queue', queue)
  local known = redis.call('HMGET', name, 'sequence', 'passed', 'mark', 'marked_ms')
  local passed = tonumber(known[2] or 0)
  if redis.call('LLEN', queue) == 0 then passed = tonumber(known[1] or 0) end
  local age = now - tonumber(known[4] or 0)
  if age >= 0 and age < GRACE_MS then return {} end
  -- What had left the list by the last mark has had GRACE_MS to be claimed; on the first look, nothing.
  local gone = redis.call('ZRANGEBYSCORE', key('sent', queue), '-inf', known[3] or 0, 'LIMIT', 0, cap)
  redis.call('HSET', name, 'mark', integer(passed), 'marked_ms', integer(now))
  return gone
end

local sent, again = 0, 0
for _, queue in ipairs(redis.call('SMEMBERS', key('queues'))) do
  local ready = redis.call('ZRANGEBYSCORE', key('waiting', queue), '-inf', integer(now), 'LIMIT', 0, cap)
  for _, id in ipairs(ready) do
    redis.call('ZREM', key('waiting', queue), id)
    if redis.call('HGET', record_key(id), 'status') == 'queued' then
      redis.call('HDEL', record_key(id), 'not_before_ms')
      send(id, queue)
      sent = sent + 1
    end
  end
  for _, id in ipairs(lost_messages(queue)) do
    if redis.call('HGET', record_key(id), 'status') == 'queued' then
      send(id, queue)
      again = again + 1
    else
      redis.call('ZREM', key('sent', queue), id)
    end
  end
end

-- An empty intake list proves that the message was taken; its task has then had ANSWER_MS to say so.
local answers = {}
if redis.call('LLEN', prefix) == 0 then
  answers = redis.call('ZRANGEBYSCORE', key('answers'), '-inf', integer(now - ANSWER_MS), 'LIMIT', 0, cap)
end
for _, id in ipairs(answers) do
  redis.call('ZREM', key('answers'), id)
  send_answer(id)
end

-- Records expire by themselves; the sets that list them are trimmed here.
for _, name in ipairs({key('created'), key('ended')}) do
  for _, id in ipairs(redis.call('ZRANGE', name, 0, cap - 1)) do
    if redis.call('EXISTS', record_key(id)) == 1 then break end
    redis.call('ZREM', name, id)
  end
end
return {1, #reaped, #due, sent, again, #answers}
