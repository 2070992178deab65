-- Release a job to run again: after a transient error, or when a worker drains.
--   charge: '1' if it counts against max_attempts, else '0'; error_json: the reason
-- → QUEUED | FAILED | 'lost'
local id, token, charge, delay_ms, error_json = unpack(ARGV, 2)
local record = keys.record(id)
local known = redis.call('HMGET', record, 'status', 'token', 'released_token', 'released_as')
if known[3] == token then return known[4] end  -- sent twice
if known[1] ~= RUNNING or known[2] ~= token then return 'lost' end
local outcome = retry_or_fail(id, tonumber(charge), tonumber(delay_ms), error_json)
redis.call('HSET', record, 'released_token', token, 'released_as', outcome)
return outcome
