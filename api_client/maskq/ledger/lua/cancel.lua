-- The caller takes the job back; a running one is fenced off before its commit.
-- ARGV: prefix, id or alias → 'unknown' | the status the job now has
local id = known_id(ARGV[2])
local status = redis.call('HGET', record_key(id), 'status')
if not status then return 'unknown' end
if status ~= 'queued' and status ~= 'running' then return status end
end_job(id, 'canceled', 'error', failure('canceled', 'canceled by the caller'))
redis.call('HSET', record_key(id), 'token', '')
return 'canceled'
