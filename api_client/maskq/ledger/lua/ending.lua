-- Shared by every script: how a job ends, or runs again after an attempt that ended.

-- Answer a raw Celery caller: its own message is sent again, and its task finds the ended record.
local function send_answer(id)
  local head = redis.call('HGET', keys.record(id), 'celery_head')
  if not head then return end
  local sequence = redis.call('INCR', keys.answer_sequence())
  redis.call('LPUSH', keys.callers_queue(), head .. cjson.encode(id .. ':answer:' .. sequence) .. '}}')
  redis.call('ZADD', keys.answers(), now, id)
end

local function count_in_batch(id, batch, state)
  if not batch then return end
  local batch_key, list_key = keys.batch(batch), keys.batch_ended(batch)
  local left_ms = redis.call('PTTL', batch_key)
  if left_ms < 0 then return end  -- past its retention: counting would create it again, without an expiry
  redis.call('RPUSH', list_key, id)
  redis.call('PEXPIRE', list_key, left_ms)
  redis.call('HINCRBY', batch_key, state, 1)
  local ended = redis.call('HINCRBY', batch_key, 'ended', 1)
  local total = tonumber(redis.call('HGET', batch_key, 'total'))
  redis.call('PUBLISH', keys.wake(batch), id)
  if ended ~= total then return end
  redis.call('HSET', batch_key, 'ended_ms', integer(now))
  local data = {}
  for _, name in ipairs(TERMINAL) do
    data[#data + 1] = '"' .. name .. '":' .. (redis.call('HGET', batch_key, name) or '0')
  end
  local known = redis.call('HMGET', batch_key, 'webhook', 'tenant', 'traceparent', 'tracestate')
  emit(BATCH_COMPLETED, batch, batch .. ':completed',
    '{"batch_id":' .. cjson.encode(batch) .. ',"total":' .. total .. ','
    .. table.concat(data, ',') .. tenant_field(known[2]) .. '}', known[1], trace_attributes(known[3], known[4]))
end

-- Names a job's objects in the store after its record is gone: 'id[ tenant][ output_prefix]'.
local function storage_member(id, request, tenant)
  local member = id
  if tenant then member = member .. ' ' .. tenant end
  if request['output_prefix'] then member = member .. ' ' .. request['output_prefix'] end
  return member
end

-- Whether the client uploaded this image for the job (contract/storage_layout.py).
local function is_upload(id, image_uri)
  local name = '/' .. id .. '/input'
  return string.sub(image_uri, -#name) == name
end

local ERROR_FILE_MS = 5000

-- The one way into a terminal state: record, sets, event, batch and wake-up in this transaction.
-- `field` is 'result' or 'error' and `payload` its JSON, or both nil.
local function end_job(id, state, field, payload)
  local record = keys.record(id)
  local known = redis.call('HMGET', record, 'status', 'attempt', 'batch_id', 'retention_ms', 'request',
    'output_retention_ms', 'tenant', 'alias', 'capped', 'model')
  local attempt, batch, retention = known[2], known[3], tonumber(known[4])
  if known[1] == QUEUED then dequeue(id, placement(id), nil) else stop_job(id, known[7], known[9]) end
  redis.call('HSET', record, 'status', state, 'ended_ms', integer(now))
  -- An ended job does not need these; there may be millions of ended records.
  redis.call('HDEL', record, 'not_before_ms', 'queue_deadline_ms', 'run_timeout_ms', 'retention_ms',
    'output_retention_ms', 'exclusive', 'alone', 'urls', 'capped')
  if field == 'result' then redis.call('HDEL', record, 'error') end
  if field then redis.call('HSET', record, field, payload) end
  redis.call('ZADD', keys.ended(), now, id)
  count_end(known[10], state, field == 'error' and cjson.decode(payload)['code'] or '')
  local request = cjson.decode(known[5])
  local metadata = request['metadata']
  -- Its objects are removed later, perhaps after the record. A holder that fails its job has removed what it
  -- wrote; a holder that lost its job may still be writing.
  local has_objects = state == SUCCEEDED or (known[1] == RUNNING and state ~= FAILED)
    or is_upload(id, request['image_uri']) or request['output_error_file']
  if known[6] and has_objects then
    redis.call('ZADD', keys.outputs(), now + tonumber(known[6]),
      storage_member(id, request, known[7]))
  end
  -- The worker that fails a job writes its error file at once; the retention writes what is missing then.
  if request['output_error_file'] and (state == FAILED or state == EXPIRED) then
    redis.call('ZADD', keys.error_files(), now + ERROR_FILE_MS, id)
  end
  local extra = ',"batch_id":' .. (batch and cjson.encode(batch) or 'null')
  if metadata and next(metadata) then extra = extra .. ',"metadata":' .. cjson.encode(metadata) end
  if field then extra = extra .. ',"' .. field .. '":' .. payload end
  emit_job(id, state, attempt, extra)
  count_in_batch(id, batch, state)
  send_answer(id)
  redis.call('PEXPIRE', record, integer(retention))
  if known[8] then redis.call('PEXPIRE', keys.alias(known[8]), integer(retention)) end
  redis.call('PUBLISH', keys.wake(id), state)
end

local function failure(code, text)
  return cjson.encode({code = code, message = text})
end

-- End a queued job whose queue_ttl_s has passed. The error names the failure of its last attempt.
local function expire_queued(id)
  local text = 'it was not running when its queue_ttl_s ended; submit it again'
  local known = redis.call('HMGET', keys.record(id), 'error', 'attempt')
  if known[1] then
    local last = cjson.decode(known[1])
    text = text .. '. Attempt ' .. known[2] .. ' ended with ' .. last['code'] .. ': ' .. last['message']
  end
  end_job(id, EXPIRED, 'error', failure(CODE_EXPIRED, text))
end

-- A cut-off attempt may leave objects that no result names. They are removed ORPHANS_MS later: a holder that
-- was only slow has then noticed and removed its own.
local ORPHANS_MS = 600000
local function add_orphans(member)
  redis.call('ZADD', keys.orphans(), now + ORPHANS_MS, member)
end

local function mark_orphans(id)
  local known = redis.call('HMGET', keys.record(id), 'request', 'tenant')
  add_orphans(storage_member(id, cjson.decode(known[1]), known[2]))
end

-- Queue a job again, or end it if it has used its attempts. Returns its new status.
local function retry_or_fail(id, charge, delay_ms, error_json)
  local known = redis.call('HMGET', keys.record(id), 'attempt', 'max_attempts', 'queue_deadline_ms',
    'tenant', 'capped')
  local charges = redis.call('HINCRBY', keys.record(id), 'charges', charge)
  redis.call('HSET', keys.record(id), 'error', error_json)
  revoke(id)  -- before the end too: a `finish` of this holder must not look like one sent twice
  if charges >= tonumber(known[2]) then
    end_job(id, FAILED, 'error', error_json)
    return FAILED
  end
  stop_job(id, known[4], known[5])
  redis.call('HSET', keys.record(id), 'status', QUEUED)
  enqueue(id, placement(id), known[1], delay_ms, known[3])
  raise_counter('retries ' .. cjson.decode(error_json)['code'], 1)
  return QUEUED
end
