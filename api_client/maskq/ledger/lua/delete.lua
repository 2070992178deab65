-- Forget a job that has ended, with its webhooks. Its idempotency key ends with it: submit looks for the
-- record.
-- ARGV: prefix, id or alias → 'deleted' | 'unknown' | the status of a job that has not ended
local id = known_id(ARGV[2])
local known = redis.call('HMGET', record_key(id), 'status', 'webhook', 'attempt', 'alias')
local status = known[1]
if not status then return 'unknown' end
if status == 'queued' or status == 'running' then return status end
if known[2] then
  -- A delivery has the id of its event (emit_job).
  local events = {id .. ':' .. status}
  for attempt = 0, tonumber(known[3]) do
    events[#events + 1] = id .. ':queued:' .. attempt
    events[#events + 1] = id .. ':running:' .. attempt
  end
  for _, event in ipairs(events) do
    redis.call('DEL', key('delivery', event), key('delivery', event, 'log'))
    for _, name in ipairs({key('deliveries'), key('deliveries', 'due')}) do
      redis.call('ZREM', name, event)
    end
  end
end
redis.call('DEL', record_key(id))
if known[4] then redis.call('DEL', key('alias', known[4])) end
for _, name in ipairs({'created', 'ended', 'answers'}) do redis.call('ZREM', key(name), id) end
return 'deleted'
