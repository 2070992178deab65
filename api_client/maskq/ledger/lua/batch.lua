-- Read a batch's counts, and the jobs that ended since a cursor, in the order in which they ended.
--   seen: how many ended jobs the caller has read already
-- → {} | {{field, value, …}, id, id, …}
local batch, seen = unpack(ARGV, 2)
local known = redis.call('HGETALL', keys.batch(batch))
if #known == 0 then return {} end
return {known, unpack(redis.call('LRANGE', keys.batch_ended(batch), seen, seen + 999))}
