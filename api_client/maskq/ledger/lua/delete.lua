-- Delete an ended job with its webhooks. Its idempotency key ends with it: submit looks for the record.
-- → 'deleted' | 'unknown' | the status of a job that has not ended
local given = unpack(ARGV, 2)
local id = known_id(given)
local known = redis.call('HMGET', keys.record(id), 'status', 'webhook', 'attempt', 'alias')
local status = known[1]
if not status then return 'unknown' end
if is_open(status) then return status end
if known[2] then
  -- A delivery has the id of its event.
  local events = {event_id(id, status)}
  for attempt = 0, tonumber(known[3]) do
    events[#events + 1] = event_id(id, QUEUED, attempt)
    events[#events + 1] = event_id(id, RUNNING, attempt)
  end
  for _, event in ipairs(events) do
    redis.call('DEL', keys.delivery(event), keys.delivery_log(event))
    for _, name in ipairs({keys.deliveries(), keys.deliveries_due(), keys.deliveries_dead()}) do
      redis.call('ZREM', name, event)
    end
  end
end
redis.call('DEL', keys.record(id))
if known[4] then redis.call('DEL', keys.alias(known[4])) end
for _, name in ipairs({keys.created(), keys.ended(), keys.answers(), keys.error_files()}) do redis.call('ZREM', name, id) end
return 'deleted'
