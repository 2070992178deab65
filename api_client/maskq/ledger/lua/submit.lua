-- Submit a job: record, place in the queue, message and event, or the reason why not.
--   '' stands for none in text arguments; choosers: JSON, see default_model; output_retention_ms: 0 keeps
--   outputs; webhook, batch_webhook: JSON {url, events}; urls: JSON, the presigned URLs that the request
--   does not show; not_before_ms (0: now), expires_ms (0: never): since the epoch; traceparent, tracestate:
--   W3C Trace Context
-- → {'accepted' | 'exists', id} | {'conflict', id} | {'full', count} | {'tenant_full', count}
--   | {'rate_exceeded', milliseconds until the tenant may submit again, jobs a minute}
--   | {'unknown_model', who chose it, which or '', known names…}
local id, request, model, priority, choosers, max_queued, max_attempts, queue_ttl_ms,
  run_timeout_ms, retention_ms, idempotency_key, fingerprint, batch, batch_total, celery_head,
  tenant, max_of_tenant, retry_of, output_retention_ms, webhook, batch_webhook, urls,
  not_before_ms, expires_ms, alias, source, traceparent, tracestate
  = unpack(ARGV, 2)

-- Sent twice, because an answer was lost: the same answer.
if redis.call('EXISTS', keys.record(id)) == 1 then return {'exists', id} end

-- Submitted under another id, perhaps by another worker that took the same message.
if alias ~= '' and redis.call('EXISTS', keys.record(known_id(alias))) == 1 then
  return {'exists', known_id(alias)}
end

if idempotency_key ~= '' then
  local known = redis.call('HMGET', keys.idempotency(idempotency_key), 'id', 'fingerprint')
  if known[1] and redis.call('EXISTS', keys.record(known[1])) == 1 then
    if known[2] ~= fingerprint then return {'conflict', known[1]} end
    return {'exists', known[1]}
  end
end

local choice = CHOICE_REQUEST
if model == '' then model, choice = default_model(choosers) end
if not model or redis.call('HEXISTS', keys.models(), model) == 0 then
  return {'unknown_model', choice, model or '', unpack(known_models())}
end

max_queued, max_of_tenant = tonumber(max_queued), tonumber(max_of_tenant)
local counts = redis.call('HMGET', keys.queue_state(model), 'queued', 'queued:' .. tenant)
local count, count_of_tenant = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
if max_queued > 0 and count >= max_queued then return {'full', tostring(count)} end

-- The tenant's settings. A job without a tenant has none.
local settings = {weight = UNSET_WEIGHT}
if tenant ~= '' then
  local known = redis.call('HMGET', keys.tenant(tenant), 'weight', 'max_running', 'max_queued',
    'submit_rate', 'next_submit_ms')
  settings = {weight = known[1] or UNSET_WEIGHT, max_running = tonumber(known[2] or nil)}
  max_of_tenant = tonumber(known[3] or max_of_tenant)
  if max_of_tenant > 0 and count_of_tenant >= max_of_tenant then
    return {'tenant_full', tostring(count_of_tenant)}
  end
  if known[4] then
    -- Generic cell rate algorithm: a minute's jobs at once, then one each `interval`.
    local rate, next_ms = tonumber(known[4]), math.max(tonumber(known[5] or 0), now)
    local interval = 60000 / rate
    local too_early_ms = next_ms + interval - 60000 - now
    if too_early_ms > 0.001 then
      return {'rate_exceeded', integer(math.ceil(too_early_ms)), known[4]}
    end
    redis.call('HSET', keys.tenant(tenant), 'next_submit_ms', string.format('%.3f', next_ms + interval))
  end
end

-- A deferred job waits as in a back-off. Its queue_ttl begins when it may run.
local delay_ms, expires_ms = math.max(tonumber(not_before_ms) - now, 0), tonumber(expires_ms)
local last_ms = now + delay_ms + tonumber(queue_ttl_ms)
if expires_ms > 0 then last_ms = math.min(last_ms, expires_ms) end
local deadline = integer(last_ms)
redis.call('HSET', keys.record(id), 'id', id, 'status', QUEUED, 'model', model, 'priority', priority,
  'request', request, 'source', source, 'attempt', 0, 'max_attempts', max_attempts,
  'created_ms', integer(now), 'queue_deadline_ms', deadline, 'run_timeout_ms', run_timeout_ms,
  'retention_ms', retention_ms)
if tenant ~= '' then redis.call('HSET', keys.record(id), 'tenant', tenant) end
if output_retention_ms ~= '0' then redis.call('HSET', keys.record(id), 'output_retention_ms', output_retention_ms) end
if webhook ~= '' then redis.call('HSET', keys.record(id), 'webhook', webhook) end
if urls ~= '' then redis.call('HSET', keys.record(id), 'urls', urls) end
if traceparent ~= '' then redis.call('HSET', keys.record(id), 'traceparent', traceparent) end
if tracestate ~= '' then redis.call('HSET', keys.record(id), 'tracestate', tracestate) end
if retry_of ~= '' then
  redis.call('HSET', keys.record(id), 'retry_of', retry_of)
  -- For a link between the traces. A caller may name any job here, so the other one's tenant must be the same.
  local retried = redis.call('HMGET', keys.record(retry_of), 'traceparent', 'tenant')
  if retried[1] and (retried[2] or '') == tenant then
    redis.call('HSET', keys.record(id), 'retried_traceparent', retried[1])
  end
end
if batch ~= '' then
  redis.call('HSET', keys.record(id), 'batch_id', batch)
  redis.call('HSETNX', keys.batch(batch), 'total', batch_total)
  if tenant ~= '' then redis.call('HSETNX', keys.batch(batch), 'tenant', tenant) end
  if batch_webhook ~= '' then redis.call('HSET', keys.batch(batch), 'webhook', batch_webhook) end
  -- The batch's event belongs to the trace of its first job.
  if traceparent ~= '' and redis.call('HSETNX', keys.batch(batch), 'traceparent', traceparent) == 1
      and tracestate ~= '' then
    redis.call('HSET', keys.batch(batch), 'tracestate', tracestate)
  end
  for _, name in ipairs({keys.batch(batch), keys.batch_ended(batch)}) do
    redis.call('PEXPIRE', name, integer(queue_ttl_ms + run_timeout_ms + retention_ms))
  end
end
if celery_head ~= '' then redis.call('HSET', keys.record(id), 'celery_head', celery_head) end
if alias ~= '' then
  redis.call('HSET', keys.record(id), 'alias', alias)
  redis.call('SET', keys.alias(alias), id)
end
if idempotency_key ~= '' then
  local name = keys.idempotency(idempotency_key)
  redis.call('HSET', name, 'id', id, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', name, integer(queue_ttl_ms + run_timeout_ms + retention_ms))
end
redis.call('ZADD', keys.created(), now, id)
local at = {model = model, level = priority, tenant = tenant, created_ms = integer(now)}
if delay_ms == 0 then count_arrival(model) end
enqueue(id, at, 0, delay_ms, deadline, settings,
  {webhook ~= '' and webhook, tenant ~= '' and tenant, source ~= '' and source,
    traceparent ~= '' and traceparent, tracestate ~= '' and tracestate})
return {'accepted', id}
