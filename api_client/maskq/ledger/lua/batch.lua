-- A batch's counts and the jobs that ended since a cursor, in the order in which they ended.
-- ARGV: prefix, batch id, how many were seen → {} | {{field, value, …}, id, id, …}
local known = redis.call('HGETALL', key('batch', ARGV[2]))
if #known == 0 then return {} end
return {known, unpack(redis.call('LRANGE', key('batch', ARGV[2], 'ended'), ARGV[3], ARGV[3] + 999))}
