-- The holder gives its job back: an error that may pass, or a worker that drains.
-- ARGV: prefix, id, token, charge (0 | 1), delay_ms, error JSON → 'queued' | 'failed' | 'lost'
local id, token = ARGV[2], ARGV[3]
local record = record_key(id)
local known = redis.call('HMGET', record, 'status', 'token', 'released_token', 'released_as')
if known[3] == token then return known[4] end  -- sent twice
if known[1] ~= 'running' or known[2] ~= token then return 'lost' end
local outcome = retry_or_fail(id, tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6])
redis.call('HSET', record, 'released_token', token, 'released_as', outcome)
return outcome
