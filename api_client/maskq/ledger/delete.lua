-- Forget a job that has ended. Its idempotency key ends with it: submit looks for the record.
-- ARGV: prefix, id → 'deleted' | 'unknown' | the status of a job that has not ended
local id = ARGV[2]
local status = redis.call('HGET', record_key(id), 'status')
if not status then return 'unknown' end
if status == 'queued' or status == 'running' then return status end
redis.call('DEL', record_key(id))
for _, name in ipairs({'created', 'ended', 'answers'}) do redis.call('ZREM', key(name), id) end
return 'deleted'
