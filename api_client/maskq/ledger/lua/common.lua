-- Shared by every script, as queue.lua and ending.lua are. prelude.py renders what comes first: `prefix` (of
-- the deployment), `keys`, and the words of the contract, such as QUEUED. The scripts build names of keys that Redis does not know in
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
-- `timestamp` makes the event a payload of Standard Webhooks as well. `target`: of its webhook, or nil. `trace`:
-- text of trace_attributes.
local function emit(event_type, subject, id, data, target, trace)
  local body = '{"specversion":"1.0","id":' .. cjson.encode(id)
    .. ',"source":' .. cjson.encode('maskq/' .. prefix)
    .. ',"type":' .. cjson.encode(event_type)
    .. ',"subject":' .. cjson.encode(subject)
    .. ',"time":"' .. iso_time(now) .. '","timestamp":"' .. iso_time(now)
    .. '","datacontenttype":"application/json"' .. trace .. ',"data":' .. data .. '}'
  redis.call('XADD', keys.events(), 'MAXLEN', '~', EVENTS_KEPT, '*', 'event', body)
  if target then add_delivery(target, event_type, subject, id, body) end
end

-- The tenant in an event's data; empty without a tenant.
local function tenant_field(tenant)
  return tenant and ',"tenant":' .. cjson.encode(tenant) or ''
end

-- The attributes of an event that CloudEvents' extension for distributed tracing defines; '' without a trace.
local function trace_attributes(traceparent, tracestate)
  if not traceparent then return '' end
  local state = tracestate and ',"tracestate":' .. cjson.encode(tracestate) or ''
  return ',"traceparent":' .. cjson.encode(traceparent) .. state
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

-- `known`: the record's {webhook, tenant, source, traceparent, tracestate}, each false if there is none, if the
-- caller has read it.
local function emit_job(id, state, attempt, extra, known)
  known = known or redis.call('HMGET', keys.record(id), 'webhook', 'tenant', 'source', 'traceparent',
    'tracestate')
  local source = known[3] and ',"source":' .. cjson.encode(known[3]) or ''
  local data = '{"job_id":' .. cjson.encode(id) .. ',"status":"' .. state
    .. '","attempt":' .. attempt .. tenant_field(known[2]) .. source .. (extra or '') .. '}'
  emit(JOB_EVENTS[state], id, event_id(id, state, attempt), data, known[1],
    trace_attributes(known[4], known[5]))
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

local function live_count(model)
  return redis.call('ZCOUNT', keys.workers(model), '(' .. integer(now), '+inf')
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
    if live_count(model) > 0 then
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
