-- Shared by every script. scripts.py renders names.py in front of it: `prefix` (of the deployment), `keys`,
-- and the words of the contract, such as QUEUED. The scripts build names of keys that Redis does not know in
-- advance; neither do kombu's lists have hash tags, so Redis Cluster is not supported (docs/architecture.md).

-- A job's id from its id or its alias.
local function known_id(given)
  if given == '' or redis.call('EXISTS', keys.record(given)) == 1 then return given end
  return redis.call('GET', keys.alias(given)) or given
end

-- Milliseconds since the epoch, by Redis' clock. No rule compares another clock.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function iso_time(ms)
  local days = math.floor(ms / 86400000)
  local rest = ms - days * 86400000
  -- Civil date from days (proleptic Gregorian): redis' Lua has no os.date.
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(rest / 3600000), math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60,
    rest % 1000)
end

local function integer(value)
  return string.format('%.0f', value)
end

local EVENTS_KEPT = 100000

local function by_name(flat)
  local named = {}
  for i = 1, #flat, 2 do named[flat[i]] = flat[i + 1] end
  return named
end

-- Returns {id of the last event ever written, id just before the first one kept}.
local function stream_ends()
  if redis.call('EXISTS', keys.events()) == 0 then return {'0-0', '0-0'} end
  local named = by_name(redis.call('XINFO', 'STREAM', keys.events()))
  local last, first = named['last-generated-id'], named['first-entry']
  -- Trimming does not touch Redis' own 'max-deleted-entry-id' (only XDEL does): counting tells instead.
  if named['entries-added'] == named['length'] then return {last, '0-0'} end
  if not first then return {last, last} end
  local ms, sequence = string.match(first[1], '^(%d+)-(%d+)$')
  if sequence ~= '0' then return {last, ms .. '-' .. integer(sequence - 1)} end
  return {last, integer(ms - 1) .. '-18446744073709551615'}
end

-- Add a webhook to deliver, in the transaction of its event and with the event's own bytes.
-- `target`: JSON {url, events}, from submit.
local function add_delivery(target, event_type, subject, id, body)
  local wanted = cjson.decode(target)
  local found = false
  for _, name in ipairs(wanted['events']) do found = found or EVENT_NAMESPACE .. name == event_type end
  if not found then return end
  redis.call('HSET', keys.delivery(id), 'id', id, 'url', wanted['url'], 'type', event_type,
    'subject', subject, 'body', body, 'state', DELIVERY_PENDING, 'attempts', 0, 'created_ms', integer(now),
    'next_ms', integer(now))
  redis.call('ZADD', keys.deliveries(), now, id)
  redis.call('ZADD', keys.deliveries_due(), now, id)
end

-- Add one CloudEvent to the stream. `data` is JSON text, so that the worker's JSON is not re-encoded.
-- `timestamp` makes the event a payload of Standard Webhooks as well. `target`: of its webhook, or nil.
local function emit(event_type, subject, id, data, target)
  local body = '{"specversion":"1.0","id":' .. cjson.encode(id)
    .. ',"source":' .. cjson.encode('maskq/' .. prefix)
    .. ',"type":' .. cjson.encode(event_type)
    .. ',"subject":' .. cjson.encode(subject)
    .. ',"time":"' .. iso_time(now) .. '","timestamp":"' .. iso_time(now)
    .. '","datacontenttype":"application/json","data":' .. data .. '}'
  redis.call('XADD', keys.events(), 'MAXLEN', '~', EVENTS_KEPT, '*', 'event', body)
  if target then add_delivery(target, event_type, subject, id, body) end
end

-- The tenant in an event's data; empty without a tenant.
local function tenant_field(tenant)
  return tenant and ',"tenant":' .. cjson.encode(tenant) or ''
end

-- Not ended: the job may still run, or runs.
local function is_open(status)
  return status == QUEUED or status == RUNNING
end

-- A state that can come again needs the attempt in its event's id.
local function event_id(id, state, attempt)
  if is_open(state) then return id .. ':' .. state .. ':' .. attempt end
  return id .. ':' .. state
end

local function emit_job(id, state, attempt, extra)
  local known = redis.call('HMGET', keys.record(id), 'webhook', 'tenant')
  local data = '{"job_id":' .. cjson.encode(id) .. ',"status":"' .. state
    .. '","attempt":' .. attempt .. tenant_field(known[2]) .. (extra or '') .. '}'
  emit(JOB_EVENTS[state], id, event_id(id, state, attempt), data, known[1])
end

-- Send a ticket: the message 'run the next job of this model' in the layout of kombu's Redis transport
-- (message.py says why), without what Celery does not read. It names no job. The claim decides which job is
-- next, so priorities and shares hold however long the list is.
local function send_ticket(model)
  local sequence = redis.call('HINCRBY', keys.queue_state(model), 'sequence', 1)
  local id, queue = '"ticket:' .. sequence .. '"', keys.queue(model)
  redis.call('LPUSH', queue, '{"body":' .. cjson.encode('[[' .. cjson.encode(model) .. '],{},{}]')
    .. ',"content-encoding":"utf-8","content-type":"application/json","headers":{"lang":"py",'
    .. '"task":"' .. TASK_RUN .. '","id":' .. id .. ',"ignore_result":true},"properties":{"body_encoding":'
    .. '"utf-8","delivery_info":{"exchange":"","routing_key":' .. cjson.encode(queue)
    .. '},"delivery_tag":' .. id .. '}}')
end

-- Processes that serve a model (JSON each), by when they count as gone unless they say that they live.
local function live_workers(model)
  return redis.call('ZRANGEBYSCORE', keys.workers(model), '(' .. integer(now), '+inf')
end

local function known_models()
  local known = redis.call('HKEYS', keys.models())
  table.sort(known)
  return known
end

-- The only model with a live worker, or the only known model if none has one; else nil.
local function only_model()
  local known = known_models()
  if #known <= 1 then return known[1] end
  local only = nil
  for _, model in ipairs(known) do
    if redis.call('ZCOUNT', keys.workers(model), '(' .. integer(now), '+inf') > 0 then
      if only then return nil end
      only = model
    end
  end
  return only
end

-- The model of a request that names none, and who chose it (contract/models.py has the order).
-- `choosers`: JSON {setting: MASKQ_DEFAULT_MODEL, caller: MASKQ_MODEL of the caller}, both optional.
-- If no worker serves the deployment's default, no other model replaces it. The caller's own model may be
-- a path on a worker's disk, so an unknown one is ignored.
local function default_model(choosers)
  local stored = redis.call('GET', keys.default_model())
  if stored then return stored, CHOICE_STORED end
  local settings = cjson.decode(choosers)
  if settings.setting then return settings.setting, CHOICE_SETTING end
  if settings.caller and redis.call('HEXISTS', keys.models(), settings.caller) == 1 then
    return settings.caller, CHOICE_CALLER
  end
  local only = only_model()
  return only, only and CHOICE_ONLY or CHOICE_NOBODY
end

-- A job's place in the queue: model, priority, tenant ('' is one, too) and when it was submitted.
local function placement(id)
  local known = redis.call('HMGET', keys.record(id), 'model', 'priority', 'tenant', 'created_ms')
  return {model = known[1], level = known[2], tenant = known[3] or '', created_ms = known[4]}
end

-- Ready jobs run in the order of submission, so a job that runs again keeps its place.
local function make_ready(id)
  local at = placement(id)
  redis.call('ZADD', keys.ready(at.model, at.level, at.tenant), at.created_ms, id)
  -- A tenant that had no jobs waits for one round at most.
  local turn = redis.call('HGET', keys.queue_state(at.model), 'turn') or '0'
  redis.call('ZADD', keys.tenant_rotation(at.model, at.level), 'NX', turn, at.tenant)
  send_ticket(at.model)
end

local function remove_ready(id, at)
  local ready = keys.ready(at.model, at.level, at.tenant)
  redis.call('ZREM', ready, id)
  if redis.call('EXISTS', ready) == 0 then
    redis.call('ZREM', keys.tenant_rotation(at.model, at.level), at.tenant)
  end
end

-- Count a model's queued jobs, and those of one tenant.
local function count_queued(at, by)
  local queue = keys.queue_state(at.model)
  redis.call('HINCRBY', queue, 'queued', by)
  if at.tenant == '' then return end
  local field = 'queued:' .. at.tenant
  if redis.call('HINCRBY', queue, field, by) <= 0 then redis.call('HDEL', queue, field) end
end

-- Put a job into QUEUED, for the first time or again. With a delay it waits without a ticket for the sweeper.
local function enqueue(id, attempt, delay_ms, deadline_ms)
  redis.call('HSET', keys.record(id), 'status', QUEUED)
  count_queued(placement(id), 1)
  if delay_ms > 0 then
    redis.call('HSET', keys.record(id), 'not_before_ms', integer(now + delay_ms))
    redis.call('ZADD', keys.waiting(), now + delay_ms, id)
  else
    redis.call('HDEL', keys.record(id), 'not_before_ms')
    make_ready(id)
  end
  redis.call('ZADD', keys.deadlines(), deadline_ms, id)
  emit_job(id, QUEUED, attempt)
end

-- Take a job out of QUEUED.
local function dequeue(id)
  local at = placement(id)
  redis.call('ZREM', keys.waiting(), id)
  remove_ready(id, at)
  count_queued(at, -1)
end

-- Answer a raw Celery caller: its own message is sent again, and its task finds the ended record.
local function send_answer(id)
  local head = redis.call('HGET', keys.record(id), 'celery_head')
  if not head then return end
  local sequence = redis.call('INCR', keys.answer_sequence())
  redis.call('LPUSH', keys.intake(), head .. cjson.encode(id .. ':answer:' .. sequence) .. '}}')
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
  local known = redis.call('HMGET', batch_key, 'webhook', 'tenant')
  emit(BATCH_COMPLETED, batch, batch .. ':completed',
    '{"batch_id":' .. cjson.encode(batch) .. ',"total":' .. total .. ','
    .. table.concat(data, ',') .. tenant_field(known[2]) .. '}', known[1])
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

-- The one way into a terminal state: record, sets, event, batch and wake-up in this transaction.
-- `field` is 'result' or 'error' and `payload` its JSON, or both nil.
local function end_job(id, state, field, payload)
  local record = keys.record(id)
  local known = redis.call('HMGET', record, 'status', 'attempt', 'batch_id', 'retention_ms', 'request',
    'output_retention_ms', 'tenant', 'alias')
  local attempt, batch, retention = known[2], known[3], tonumber(known[4])
  if known[1] == QUEUED then dequeue(id) end
  redis.call('HSET', record, 'status', state, 'ended_ms', integer(now))
  -- An ended job does not need these; there may be millions of ended records.
  redis.call('HDEL', record, 'not_before_ms', 'queue_deadline_ms', 'run_timeout_ms', 'retention_ms',
    'output_retention_ms', 'exclusive', 'alone', 'urls')
  if field == 'result' then redis.call('HDEL', record, 'error') end
  if field then redis.call('HSET', record, field, payload) end
  redis.call('ZREM', keys.leases(), id)
  redis.call('ZREM', keys.deadlines(), id)
  redis.call('ZADD', keys.ended(), now, id)
  local request = cjson.decode(known[5])
  local metadata = request['metadata']
  -- Its objects are removed later, perhaps after the record. A holder that fails its job has removed what it
  -- wrote; a holder that lost its job may still be writing.
  local has_objects = state == SUCCEEDED or (known[1] == RUNNING and state ~= FAILED)
    or is_upload(id, request['image_uri'])
  if known[6] and has_objects then
    redis.call('ZADD', keys.outputs(), now + tonumber(known[6]),
      storage_member(id, request, known[7]))
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

-- A model's completions are counted by minutes, in a ring: field 'minute:N' is 'minute completions ms'.
local PACE_MINUTES = 8

-- Returns {completions, milliseconds, …} of the last minutes.
local function recent_pace(model)
  local minute, found = math.floor(now / 60000), {}
  for slot = 0, PACE_MINUTES - 1 do
    local text = redis.call('HGET', keys.pace(model), 'minute:' .. slot) or ''
    local counted, jobs, ms = string.match(text, '^(%d+) (%d+) (%d+)$')
    if counted and minute - counted < PACE_MINUTES then
      found[#found + 1] = jobs
      found[#found + 1] = ms
    end
  end
  return found
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

-- Take a running job from its holder.
local function drop_lease(id)
  redis.call('ZREM', keys.leases(), id)
  redis.call('HSET', keys.record(id), 'token', '')
end

-- Queue a job again, or end it if it has used its attempts. Returns its new status.
local function retry_or_fail(id, charge, delay_ms, error_json)
  local known = redis.call('HMGET', keys.record(id), 'attempt', 'max_attempts', 'queue_deadline_ms')
  local charges = redis.call('HINCRBY', keys.record(id), 'charges', charge)
  redis.call('HSET', keys.record(id), 'error', error_json)
  drop_lease(id)  -- before the end too: a `finish` of this holder must not look like one sent twice
  if charges >= tonumber(known[2]) then
    end_job(id, FAILED, 'error', error_json)
    return FAILED
  end
  enqueue(id, known[1], delay_ms, known[3])
  return QUEUED
end
