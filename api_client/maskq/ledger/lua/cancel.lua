-- Cancel a job for its caller. A running one loses its token, so its holder cannot commit.
-- → 'unknown' | the status that the job now has
local given = unpack(ARGV, 2)
local id = known_id(given)
local status = redis.call('HGET', keys.record(id), 'status')
if not status then return 'unknown' end
if not is_open(status) then return status end
if status == RUNNING then mark_orphans(id) end  -- its holder may be dead, and then cleans up nothing
end_job(id, CANCELED, 'error', failure(CODE_CANCELED, 'canceled by the caller'))
revoke(id)
return CANCELED
