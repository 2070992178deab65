-- The record of a job. A script, though it only reads: a server that was demoted refuses it, where it
-- would answer a plain HGETALL with what it knew before.
-- ARGV: prefix, id or alias → {field, value, …}, empty where there is none
local record = redis.call('HGETALL', record_key(ARGV[2]))
if #record > 0 then return record end
return redis.call('HGETALL', record_key(known_id(ARGV[2])))
