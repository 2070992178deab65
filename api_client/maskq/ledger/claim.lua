-- A worker asks for the job that a message names.
-- ARGV: prefix, id, token, owner, lease_ms, exclusive ('1': this process runs nothing else meanwhile)
-- → {'claimed', field, value, …} | {'unknown'} | {'ended'} | {'held'} | {'early'} | {'expired'} | {'alone'}
local id, token, owner, exclusive = ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local record = record_key(id)
local known = redis.call('HMGET', record, 'status', 'token', 'queue', 'not_before_ms',
  'queue_deadline_ms', 'run_timeout_ms', 'alone', 'messages')
local status, queue = known[1], known[3]
if not status then return {'unknown'} end

-- Whatever was sent before this job has left the list too: sweep.lua finds lost messages by it. Not when
-- the job was sent more than once: an old message may have come back while the latest is still behind a
-- backlog, and the whole backlog would count as passed.
local sequence = tonumber(redis.call('ZSCORE', key('sent', queue), id) or 0)
local passed = tonumber(redis.call('HGET', key('queue', queue), 'passed') or 0)
if sequence > passed and known[8] == '1' then
  redis.call('HSET', key('queue', queue), 'passed', integer(sequence))
end

if status == 'running' then
  if known[2] ~= token then return {'held'} end  -- sent twice falls through to the same answer
elseif status ~= 'queued' then
  return {'ended'}
else
  if now >= tonumber(known[5]) then
    expire_queued(id)
    return {'expired'}
  end
  if known[4] and now < tonumber(known[4]) then return {'early'} end
  if known[7] == '1' and exclusive ~= '1' then
    -- The worker first lets its other jobs end. Should it die meanwhile, the sweeper sends the job again.
    redis.call('ZREM', key('sent', queue), id)
    redis.call('ZADD', key('waiting', queue), now + 2 * tonumber(ARGV[5]), id)
    return {'alone'}
  end
  local attempt = redis.call('HINCRBY', record, 'attempt', 1)
  redis.call('HSET', record, 'status', 'running', 'token', token, 'owner', owner,
    'exclusive', exclusive, 'started_ms', integer(now))
  redis.call('HDEL', record, 'not_before_ms')
  redis.call('ZREM', key('sent', queue), id)
  redis.call('ZREM', key('waiting', queue), id)
  redis.call('ZADD', key('leases'), now + tonumber(ARGV[5]), id)
  redis.call('ZADD', key('deadlines'), now + tonumber(known[6]), id)
  emit_job(id, 'running', attempt)
end
return {'claimed', unpack(redis.call('HGETALL', record))}
