-- Read the record of a job. This is a script because a demoted server refuses scripts, and would answer
-- a plain HGETALL with old data.
-- → {field, value, …}, empty if there is none
local given = unpack(ARGV, 2)
local record = redis.call('HGETALL', keys.record(given))
if #record > 0 then return record end
return redis.call('HGETALL', keys.record(known_id(given)))
