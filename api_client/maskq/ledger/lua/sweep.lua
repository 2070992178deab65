-- Do what no worker does: leases, deadlines and back-offs that passed, and lost tickets.
-- Any number of sweepers may call it at any rate; one call in min_gap_ms does the work.
--   cap: jobs of each kind; is_new: '1' if this server did not know the script (it has just started, or
--   became the primary)
-- → {swept (0 | 1), reaped, timed out or expired, ready after back-off, tickets sent again, answers sent again}
local lease_ms, cap, is_new, event_retention_ms, min_gap_ms = unpack(ARGV, 2)
local GRACE_MS, ANSWER_MS = 5000, 15000
local MAX_ANSWERS = 20  -- per job: five minutes of attempts
local MOST_COUNTED = 1000  -- tenants whose ready jobs one call counts
local CHECKED = 20  -- tenants, and running jobs of each, that one call looks at
-- Sweeps come every second. A shorter gap is not an outage, even if half a lease is shorter: otherwise
-- every sweep would extend all leases, and none would ever run out.
local OUTAGE_MS = 2500
lease_ms, cap, is_new = tonumber(lease_ms), tonumber(cap), is_new == '1'
local state = keys.sweeper()
local gap = now - tonumber(redis.call('HGET', state, 'swept_ms') or 0)
if gap < 0 then gap = now end  -- Redis' clock was set back: treat it as a long gap, or sweeps would stop
if gap < tonumber(min_gap_ms) and not is_new then return {0, 0, 0, 0, 0, 0} end
redis.call('HSET', state, 'swept_ms', integer(now))

-- Redis or every sweeper was down, so holders could not renew either. Grant one lease of grace, once.
if gap > math.max(lease_ms / 2, OUTAGE_MS) or is_new then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys.leases(), '-inf', integer(now + lease_ms))) do
    redis.call('ZADD', keys.leases(), now + lease_ms, id)
  end
end

-- The holder's process died, or cannot reach Redis. Only a job that ran alone is charged. The others run
-- again alone, which finds the job that kills workers without charging its neighbours.
local function reap(id)
  local known = redis.call('HMGET', keys.record(id), 'exclusive', 'attempt')
  redis.call('HSET', keys.record(id), 'alone', '1')
  mark_orphans(id)
  retry_or_fail(id, known[1] == '1' and 1 or 0, 0, failure(CODE_WORKER_LOST,
    'its worker died or stopped responding during attempt ' .. known[2]))
end

local reaped = redis.call('ZRANGEBYSCORE', keys.leases(), '-inf', integer(now), 'LIMIT', 0, cap)
for _, id in ipairs(reaped) do
  if redis.call('HGET', keys.record(id), 'status') == RUNNING then
    raise_counter('leases_lost', 1)
    reap(id)
  else
    redis.call('ZREM', keys.leases(), id)
  end
end

local due = redis.call('ZRANGEBYSCORE', keys.deadlines(), '-inf', integer(now), 'LIMIT', 0, cap)
for _, id in ipairs(due) do
  local status = redis.call('HGET', keys.record(id), 'status')
  if status == QUEUED then
    expire_queued(id)
  elseif status == RUNNING then
    mark_orphans(id)
    end_job(id, FAILED, 'error', failure(CODE_TIMEOUT, 'did not end within its run_timeout_s'))
    revoke(id)
  else
    redis.call('ZREM', keys.deadlines(), id)
  end
end

local ready = redis.call('ZRANGEBYSCORE', keys.waiting(), '-inf', integer(now), 'LIMIT', 0, cap)
for _, id in ipairs(ready) do
  redis.call('ZREM', keys.waiting(), id)
  if redis.call('HGET', keys.record(id), 'status') == QUEUED then
    redis.call('HDEL', keys.record(id), 'not_before_ms')
    make_ready(id, placement(id))
  end
end

-- Whether tickets of a model may be missing: in O(1), and false for nearly every model. A ready job is a queued one.
-- Now and then, about once a minute, the jobs are counted anyway: no mistake in the count of queued jobs may leave
-- a job without a ticket. `i`: so that this comes to the models one after the other. `known`: missing at the last look.
local function may_lack_tickets(model, i, known)
  return tonumber(known or 0) > 0 or queued_count(model) > redis.call('LLEN', keys.queue(model)) or (now + i) % 12 == 0
end

-- A ticket is lost if a job lacks one now and lacked it GRACE_MS ago: the worker that takes a ticket claims
-- much sooner. The list never has more tickets than jobs, so a backlog does not grow by this.
local function send_lost_tickets(model, ready, known)
  local missing = math.max(ready - redis.call('LLEN', keys.queue(model)), 0)
  local lost = math.min(missing, tonumber(known or 0), cap)
  for _ = 1, lost do send_ticket(model) end
  redis.call('HSET', keys.queue_state(model), 'missing', missing - lost, 'marked_ms', integer(now))
  return lost
end

-- The models whose tickets were not checked for GRACE_MS: {model, when, tickets missing then}, the longest ago first.
local function unchecked_models()
  local found = {}
  for _, model in ipairs(redis.call('HKEYS', keys.models())) do
    local known = redis.call('HMGET', keys.queue_state(model), 'marked_ms', 'missing')
    local at = tonumber(known[1] or 0)
    if now - at < 0 or now - at >= GRACE_MS then found[#found + 1] = {model, at, known[2]} end
  end
  table.sort(found, function(one, other) return one[2] < other[2] end)
  return found
end

-- A worker of version 0.1 that ends a job of a capped tenant does not count that.
local function count_running(tenant)
  local running, gone = keys.tenant_running(tenant), 0
  for _, id in ipairs(redis.call('SRANDMEMBER', running, CHECKED)) do
    if redis.call('HGET', keys.record(id), 'status') ~= RUNNING then gone = gone + redis.call('SREM', running, id) end
  end
  local _, free = running_cap(tenant)
  if gone > 0 and free and free > 0 then resume_tenant(tenant, 1) end
end

for _, tenant in ipairs(redis.call('SRANDMEMBER', keys.tenants(), CHECKED)) do count_running(tenant) end

local again, tenants_left = 0, MOST_COUNTED
for i, row in ipairs(unchecked_models()) do
  if tenants_left <= 0 then break end  -- the next sweeps check the others
  local model, ready = row[1], 0
  adopt_former_turns(model)
  if may_lack_tickets(model, i, row[3]) then
    ready, tenants_left = ready_count(model), tenants_left - waiting_total(model)
  end
  again = again + send_lost_tickets(model, ready, row[3])
end
if again > 0 then raise_counter('tickets_resent', again) end

-- An empty callers' queue proves that the message was taken. Its task has had ANSWER_MS to confirm.
local answers = {}
if redis.call('LLEN', keys.callers_queue()) == 0 then
  answers = redis.call('ZRANGEBYSCORE', keys.answers(), '-inf', integer(now - ANSWER_MS), 'LIMIT', 0, cap)
end
for _, id in ipairs(answers) do
  redis.call('ZREM', keys.answers(), id)
  local asked = redis.call('HEXISTS', keys.record(id), 'celery_head') == 1
  if asked and redis.call('HINCRBY', keys.record(id), 'answers', 1) <= MAX_ANSWERS then send_answer(id) end
end

redis.call('XTRIM', keys.events(), 'MINID', '~', integer(now - event_retention_ms))

-- Records expire by themselves. The sets that list them are trimmed here.
for _, listed in ipairs({{keys.created(), keys.record}, {keys.ended(), keys.record},
    {keys.deliveries(), keys.delivery}, {keys.deliveries_dead(), keys.delivery}}) do
  local name, record_of = listed[1], listed[2]
  for _, id in ipairs(redis.call('ZRANGE', name, 0, cap - 1)) do
    if redis.call('EXISTS', record_of(id)) == 1 then break end
    redis.call('ZREM', name, id)
  end
end
return {1, #reaped, #due, #ready, again, #answers}
