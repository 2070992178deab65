-- The caller takes the job back; a running one is fenced off before its commit.
-- ARGV: prefix, id → 'unknown' | the status the job now has
local status = redis.call('HGET', record_key(ARGV[2]), 'status')
if not status then return 'unknown' end
if status ~= 'queued' and status ~= 'running' then return status end
end_job(ARGV[2], 'canceled', 'error', failure('canceled', 'canceled by the caller'))
redis.call('HSET', record_key(ARGV[2]), 'token', '')
return 'canceled'
