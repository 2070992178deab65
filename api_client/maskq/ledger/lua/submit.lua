-- A new job: record, place in the queue, message and event, or the reason why not.
-- ARGV: prefix, id, request, model or '', priority, who else chooses the model (JSON, see
--       default_model), max_queued, max_attempts,
--       queue_ttl_ms, run_timeout_ms, retention_ms, idempotency key or '', fingerprint, batch or '',
--       batch total, celery_head or '', tenant or '', max_queued_per_tenant, retry_of or '',
--       output_retention_ms (0: kept), webhook of the job or '', webhook of the batch or '' (JSON),
--       presigned URLs or '' (JSON: what the request does not show),
--       not_before_ms (0: now), expires_ms (0: never): times since the epoch, of Celery's eta and expires,
--       alias or ''
-- → {'accepted' | 'exists', id} | {'conflict', id} | {'full', count} | {'tenant_full', count}
--   | {'unknown_model', who chose it, which or '', names of those known…}
local id, request, model, priority = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local idempotency_key, fingerprint, batch = ARGV[12], ARGV[13], ARGV[14]

-- Sent twice (an answer was lost on the way): the same answer.
if redis.call('EXISTS', record_key(id)) == 1 then return {'exists', id} end

-- Submitted under another id, perhaps by another worker that took the same message.
local alias = ARGV[26]
if alias ~= '' and redis.call('EXISTS', record_key(known_id(alias))) == 1 then
  return {'exists', known_id(alias)}
end

if idempotency_key ~= '' then
  local known = redis.call('HMGET', key('idempotency', idempotency_key), 'id', 'fingerprint')
  if known[1] and redis.call('EXISTS', record_key(known[1])) == 1 then
    if known[2] ~= fingerprint then return {'conflict', known[1]} end
    return {'exists', known[1]}
  end
end

local choice = 'request'
if model == '' then model, choice = default_model(ARGV[6]) end
if not model or redis.call('HEXISTS', key('models'), model) == 0 then
  return {'unknown_model', choice, model or '', unpack(known_models())}
end

local tenant, max_queued, max_of_tenant = ARGV[17], tonumber(ARGV[7]), tonumber(ARGV[18])
local counts = redis.call('HMGET', key('queue', model), 'queued', 'queued:' .. tenant)
local count, count_of_tenant = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
if max_queued > 0 and count >= max_queued then return {'full', tostring(count)} end
if max_of_tenant > 0 and tenant ~= '' and count_of_tenant >= max_of_tenant then
  return {'tenant_full', tostring(count_of_tenant)}
end

-- A deferred job waits like one that backs off. Its queue_ttl begins when it may run.
local delay_ms, expires_ms = math.max(tonumber(ARGV[24]) - now, 0), tonumber(ARGV[25])
local last_ms = now + delay_ms + tonumber(ARGV[9])
if expires_ms > 0 then last_ms = math.min(last_ms, expires_ms) end
local deadline = integer(last_ms)
redis.call('HSET', record_key(id), 'id', id, 'status', 'queued', 'model', model, 'priority', priority,
  'request', request, 'attempt', 0, 'max_attempts', ARGV[8],
  'created_ms', integer(now), 'queue_deadline_ms', deadline, 'run_timeout_ms', ARGV[10],
  'retention_ms', ARGV[11])
if tenant ~= '' then redis.call('HSET', record_key(id), 'tenant', tenant) end
if ARGV[20] ~= '0' then redis.call('HSET', record_key(id), 'output_retention_ms', ARGV[20]) end
if ARGV[21] ~= '' then redis.call('HSET', record_key(id), 'webhook', ARGV[21]) end
if ARGV[23] ~= '' then redis.call('HSET', record_key(id), 'urls', ARGV[23]) end
if ARGV[19] ~= '' then redis.call('HSET', record_key(id), 'retry_of', ARGV[19]) end
if batch ~= '' then
  redis.call('HSET', record_key(id), 'batch_id', batch)
  redis.call('HSETNX', key('batch', batch), 'total', ARGV[15])
  if tenant ~= '' then redis.call('HSETNX', key('batch', batch), 'tenant', tenant) end
  if ARGV[22] ~= '' then redis.call('HSET', key('batch', batch), 'webhook', ARGV[22]) end
  for _, name in ipairs({key('batch', batch), key('batch', batch, 'ended')}) do
    redis.call('PEXPIRE', name, integer(ARGV[9] + ARGV[10] + ARGV[11]))
  end
end
if ARGV[16] ~= '' then redis.call('HSET', record_key(id), 'celery_head', ARGV[16]) end
if alias ~= '' then
  redis.call('HSET', record_key(id), 'alias', alias)
  redis.call('SET', key('alias', alias), id)
end
if idempotency_key ~= '' then
  local name = key('idempotency', idempotency_key)
  redis.call('HSET', name, 'id', id, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', name, integer(ARGV[9] + ARGV[10] + ARGV[11]))
end
redis.call('ZADD', key('created'), now, id)
enqueue(id, 0, delay_ms, deadline)
return {'accepted', id}
