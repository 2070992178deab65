-- The record of a job. A script, though it only reads: a server that was demoted refuses it, where it
-- would answer a plain HGETALL with what it knew before.
-- ARGV: prefix, id → {field, value, …}, empty where there is none
return redis.call('HGETALL', record_key(ARGV[2]))
