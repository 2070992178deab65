-- Shared by every script; put in front of each by scripts.py.
-- ARGV[1] is the deployment's key prefix. Keys are derived in the scripts: the broker's lists are not
-- hash-tagged either, so Redis Cluster is out for both (docs/architecture.md).
local prefix = ARGV[1]

local function key(...)
  return prefix .. ':' .. table.concat({...}, ':')
end

local function record_key(id)
  return key('job', id)
end

-- A job's id, from what a caller calls it: its id, or the alias that it was submitted under.
local function known_id(given)
  if given == '' or redis.call('EXISTS', record_key(given)) == 1 then return given end
  return redis.call('GET', key('alias', given)) or given
end

-- Milliseconds since the epoch, by Redis' clock: the only clock that any rule compares.
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

-- {id of the last event ever written, id just before the first one kept}
local function stream_ends()
  if redis.call('EXISTS', key('events')) == 0 then return {'0-0', '0-0'} end
  local named = by_name(redis.call('XINFO', 'STREAM', key('events')))
  local last, first = named['last-generated-id'], named['first-entry']
  -- Trimming does not touch Redis' own 'max-deleted-entry-id' (only XDEL does): counting tells instead.
  if named['entries-added'] == named['length'] then return {last, '0-0'} end
  if not first then return {last, last} end
  local ms, sequence = string.match(first[1], '^(%d+)-(%d+)$')
  if sequence ~= '0' then return {last, ms .. '-' .. integer(sequence - 1)} end
  return {last, integer(ms - 1) .. '-18446744073709551615'}
end

-- A webhook is owed: its row is written in the transaction of the event, with the event's own bytes.
-- `target`: JSON {url, events}, as submit was given it.
local function owe_delivery(target, kind, subject, id, body)
  local wanted = cjson.decode(target)
  local found = false
  for _, name in ipairs(wanted['events']) do found = found or name == kind end
  if not found then return end
  redis.call('HSET', key('delivery', id), 'id', id, 'url', wanted['url'], 'type', 'maskq.' .. kind,
    'subject', subject, 'body', body, 'state', 'pending', 'attempts', 0, 'created_ms', integer(now),
    'next_ms', integer(now))
  redis.call('ZADD', key('deliveries'), now, id)
  redis.call('ZADD', key('deliveries', 'due'), now, id)
end

-- One CloudEvent onto the stream. `data` is JSON text, so that what the worker wrote is not re-encoded.
-- `timestamp` makes it a payload of Standard Webhooks as well. `target`: who gets it posted, or nil.
local function emit(kind, subject, id, data, target)
  local body = '{"specversion":"1.0","id":' .. cjson.encode(id)
    .. ',"source":' .. cjson.encode('maskq/' .. prefix)
    .. ',"type":' .. cjson.encode('maskq.' .. kind)
    .. ',"subject":' .. cjson.encode(subject)
    .. ',"time":"' .. iso_time(now) .. '","timestamp":"' .. iso_time(now)
    .. '","datacontenttype":"application/json","data":' .. data .. '}'
  redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_KEPT, '*', 'event', body)
  if target then owe_delivery(target, kind, subject, id, body) end
end

-- What says in an event's data whose it is; nothing without a tenant.
local function tenant_field(tenant)
  return tenant and ',"tenant":' .. cjson.encode(tenant) or ''
end

local function emit_job(id, state, attempt, extra)
  local known = redis.call('HMGET', record_key(id), 'webhook', 'tenant')
  local data = '{"job_id":' .. cjson.encode(id) .. ',"status":"' .. state
    .. '","attempt":' .. attempt .. tenant_field(known[2]) .. (extra or '') .. '}'
  -- A state that can come again needs the attempt in its event's id; a terminal one comes once.
  -- delete.lua finds a job's deliveries by these ids.
  local unique = id .. ':' .. state
  if state == 'queued' or state == 'running' then unique = unique .. ':' .. attempt end
  emit('job.' .. state, id, unique, data, known[1])
end

-- A ticket: the message 'take the next job of this model', as kombu's Redis transport lays it out
-- (message.py says why it is written here), without what Celery does not read. It names no job: which
-- one is next is decided when the ticket is taken off the list, so that priorities and shares hold however
-- long the list is.
local function send_ticket(model)
  local sequence = redis.call('HINCRBY', key('queue', model), 'sequence', 1)
  local id, queue = '"ticket:' .. sequence .. '"', prefix .. '.' .. model
  redis.call('LPUSH', queue, '{"body":' .. cjson.encode('[[' .. cjson.encode(model) .. '],{},{}]')
    .. ',"content-encoding":"utf-8","content-type":"application/json","headers":{"lang":"py",'
    .. '"task":"maskq.run","id":' .. id .. ',"ignore_result":true},"properties":{"body_encoding":'
    .. '"utf-8","delivery_info":{"exchange":"","routing_key":' .. cjson.encode(queue)
    .. '},"delivery_tag":' .. id .. '}}')
end

-- Processes that serve a model (JSON each), by when they count as gone unless they say that they live.
local function workers_key(model)
  return key('workers', model)
end

local function live_workers(model)
  return redis.call('ZRANGEBYSCORE', workers_key(model), '(' .. integer(now), '+inf')
end

local function known_models()
  local known = redis.call('HKEYS', key('models'))
  table.sort(known)
  return known
end

-- The one model, if there is but one with a worker alive, or but one at all while none has.
local function only_model()
  local known = known_models()
  if #known <= 1 then return known[1] end
  local only = nil
  for _, model in ipairs(known) do
    if redis.call('ZCOUNT', workers_key(model), '(' .. integer(now), '+inf') > 0 then
      if only then return nil end
      only = model
    end
  end
  return only
end

-- Which model a request is for that names none, and who says so (contract/models.py has the order).
-- `asked`: JSON, {setting: MASKQ_DEFAULT_MODEL, caller: MASKQ_MODEL of the caller}, each or neither.
-- A default of the deployment's that nobody serves is not replaced by another model; a caller's own
-- may be a place on a worker's disk, and is.
local function default_model(asked)
  local stored = redis.call('GET', key('default-model'))
  if stored then return stored, 'stored' end
  local settings = cjson.decode(asked)
  if settings.setting then return settings.setting, 'setting' end
  if settings.caller and redis.call('HEXISTS', key('models'), settings.caller) == 1 then
    return settings.caller, 'caller'
  end
  local only = only_model()
  return only, only and 'only' or 'nobody'
end

local LEVELS = {'high', 'normal', 'low'}

local function turns_key(model, level)
  return key('turns', model, level)
end

local function ready_key(model, level, tenant)
  return key('ready', model, level, tenant)
end

-- What places a job: model, priority, tenant ('' is one, too) and when it was submitted.
local function placed(id)
  local known = redis.call('HMGET', record_key(id), 'model', 'priority', 'tenant', 'created_ms')
  return {model = known[1], level = known[2], tenant = known[3] or '', created_ms = known[4]}
end

-- Among those that may run now, the oldest first: a job that comes back is not put behind.
local function make_ready(id)
  local at = placed(id)
  redis.call('ZADD', ready_key(at.model, at.level, at.tenant), at.created_ms, id)
  -- A tenant that had nothing waits one round at most: it comes after those whose turn is due.
  local turn = redis.call('HGET', key('queue', at.model), 'turn') or '0'
  redis.call('ZADD', turns_key(at.model, at.level), 'NX', turn, at.tenant)
  send_ticket(at.model)
end

local function unready(id, at)
  local ready = ready_key(at.model, at.level, at.tenant)
  redis.call('ZREM', ready, id)
  if redis.call('EXISTS', ready) == 0 then
    redis.call('ZREM', turns_key(at.model, at.level), at.tenant)
  end
end

-- How many of a model's jobs are queued, and how many of one tenant.
local function count_queued(at, by)
  local queue = key('queue', at.model)
  redis.call('HINCRBY', queue, 'queued', by)
  if at.tenant == '' then return end
  local field = 'queued:' .. at.tenant
  if redis.call('HINCRBY', queue, field, by) <= 0 then redis.call('HDEL', queue, field) end
end

-- Back to (or first time into) queued. With a delay it waits without a ticket until the sweeper comes.
local function enqueue(id, attempt, delay_ms, deadline_ms)
  redis.call('HSET', record_key(id), 'status', 'queued')
  count_queued(placed(id), 1)
  if delay_ms > 0 then
    redis.call('HSET', record_key(id), 'not_before_ms', integer(now + delay_ms))
    redis.call('ZADD', key('waiting'), now + delay_ms, id)
  else
    redis.call('HDEL', record_key(id), 'not_before_ms')
    make_ready(id)
  end
  redis.call('ZADD', key('deadlines'), deadline_ms, id)
  emit_job(id, 'queued', attempt)
end

-- Out of queued: to a worker, or to its end.
local function dequeue(id)
  local at = placed(id)
  redis.call('ZREM', key('waiting'), id)
  unready(id, at)
  count_queued(at, -1)
end

-- A raw Celery caller is answered by its own message, sent again: its task then finds the ended record.
local function send_answer(id)
  local head = redis.call('HGET', record_key(id), 'celery_head')
  if not head then return end
  local sequence = redis.call('INCR', key('answer-sequence'))
  redis.call('LPUSH', prefix, head .. cjson.encode(id .. ':answer:' .. sequence) .. '}}')
  redis.call('ZADD', key('answers'), now, id)
end

local function count_in_batch(id, batch, state)
  if not batch then return end
  local batch_key, list_key = key('batch', batch), key('batch', batch, 'ended')
  local left_ms = redis.call('PTTL', batch_key)
  if left_ms < 0 then return end  -- past its own retention: counting would bring it back, without an end
  redis.call('RPUSH', list_key, id)
  redis.call('PEXPIRE', list_key, left_ms)
  redis.call('HINCRBY', batch_key, state, 1)
  local ended = redis.call('HINCRBY', batch_key, 'ended', 1)
  local total = tonumber(redis.call('HGET', batch_key, 'total'))
  redis.call('PUBLISH', key('wake', batch), id)
  if ended ~= total then return end
  redis.call('HSET', batch_key, 'ended_ms', integer(now))
  local data = {}
  for _, name in ipairs({'succeeded', 'failed', 'canceled', 'expired'}) do
    data[#data + 1] = '"' .. name .. '":' .. (redis.call('HGET', batch_key, name) or '0')
  end
  local known = redis.call('HMGET', batch_key, 'webhook', 'tenant')
  emit('batch.completed', batch, batch .. ':completed',
    '{"batch_id":' .. cjson.encode(batch) .. ',"total":' .. total .. ','
    .. table.concat(data, ',') .. tenant_field(known[2]) .. '}', known[1])
end

-- Whose objects in the store they are, for when the record is gone: 'id[ tenant][ output_prefix]'.
local function storage_member(id, request, tenant)
  local member = id
  if tenant then member = member .. ' ' .. tenant end
  if request['output_prefix'] then member = member .. ' ' .. request['output_prefix'] end
  return member
end

-- Whether an image is what a client uploaded for this job: contract/storage_layout.py names it.
local function is_upload(id, image_uri)
  local name = '/' .. id .. '/input'
  return string.sub(image_uri, -#name) == name
end

-- The one way into a terminal state: record, sets, event, batch and wake-up in this transaction.
-- `field` is 'result' or 'error' and `payload` its JSON, or both nil.
local function end_job(id, state, field, payload)
  local record = record_key(id)
  local known = redis.call('HMGET', record, 'status', 'attempt', 'batch_id', 'retention_ms', 'request',
    'output_retention_ms', 'tenant', 'alias')
  local attempt, batch, retention = known[2], known[3], tonumber(known[4])
  if known[1] == 'queued' then dequeue(id) end
  redis.call('HSET', record, 'status', state, 'ended_ms', integer(now))
  -- What only a job that goes on needs: there may be millions of ended records.
  redis.call('HDEL', record, 'not_before_ms', 'queue_deadline_ms', 'run_timeout_ms', 'retention_ms',
    'output_retention_ms', 'exclusive', 'alone', 'urls')
  if field == 'result' then redis.call('HDEL', record, 'error') end
  if field then redis.call('HSET', record, field, payload) end
  redis.call('ZREM', key('leases'), id)
  redis.call('ZREM', key('deadlines'), id)
  redis.call('ZADD', key('ended'), now, id)
  local request = cjson.decode(known[5])
  local metadata = request['metadata']
  -- Its objects go after a while: whose they are must outlive the record. A holder that fails its job has
  -- removed what it wrote; one that the job was taken from may still be writing.
  local has_objects = state == 'succeeded' or (known[1] == 'running' and state ~= 'failed')
    or is_upload(id, request['image_uri'])
  if known[6] and has_objects then
    redis.call('ZADD', key('outputs'), now + tonumber(known[6]),
      storage_member(id, request, known[7]))
  end
  local extra = ',"batch_id":' .. (batch and cjson.encode(batch) or 'null')
  if metadata and next(metadata) then extra = extra .. ',"metadata":' .. cjson.encode(metadata) end
  if field then extra = extra .. ',"' .. field .. '":' .. payload end
  emit_job(id, state, attempt, extra)
  count_in_batch(id, batch, state)
  send_answer(id)
  redis.call('PEXPIRE', record, integer(retention))
  if known[8] then redis.call('PEXPIRE', key('alias', known[8]), integer(retention)) end
  redis.call('PUBLISH', key('wake', id), state)
end

local function failure(code, text)
  return cjson.encode({code = code, message = text})
end

-- A queued job whose queue_ttl_s has passed. The error names the failure of its last attempt.
local function expire_queued(id)
  local text = 'it was not running when its queue_ttl_s ended; submit it again'
  local known = redis.call('HMGET', record_key(id), 'error', 'attempt')
  if known[1] then
    local last = cjson.decode(known[1])
    text = text .. '. Attempt ' .. known[2] .. ' ended with ' .. last['code'] .. ': ' .. last['message']
  end
  end_job(id, 'expired', 'error', failure('expired', text))
end

-- An attempt was cut off, perhaps with objects in the store that no result names: somebody looks later,
-- when a holder that was only slow has long found out and removed its own.
local ORPHANS_MS = 600000
local function look_for_orphans(member)
  redis.call('ZADD', key('orphans'), now + ORPHANS_MS, member)
end

local function leave_orphans(id)
  local known = redis.call('HMGET', record_key(id), 'request', 'tenant')
  look_for_orphans(storage_member(id, cjson.decode(known[1]), known[2]))
end

-- Take a running job from its holder. `release.lua` and `sweep.lua` decide what becomes of it.
local function unhold(id)
  redis.call('ZREM', key('leases'), id)
  redis.call('HSET', record_key(id), 'token', '')
end

-- After a charge: another try, or the end.
local function retry_or_fail(id, charge, delay_ms, error_json)
  local known = redis.call('HMGET', record_key(id), 'attempt', 'max_attempts', 'queue_deadline_ms')
  local charges = redis.call('HINCRBY', record_key(id), 'charges', charge)
  redis.call('HSET', record_key(id), 'error', error_json)
  unhold(id)  -- at the end too: a `finish` of this holder must not pass for one sent twice
  if charges >= tonumber(known[2]) then
    end_job(id, 'failed', 'error', error_json)
    return 'failed'
  end
  enqueue(id, known[1], delay_ms, known[3])
  return 'queued'
end
