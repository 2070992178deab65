-- Note that an image may be uploaded for a job that does not exist yet.
--   member: see storage_member; kept_ms: its object is removed then, if no job of this id exists
local member, kept_ms = unpack(ARGV, 2)
redis.call('ZADD', keys.uploads(), now + tonumber(kept_ms), member)
return 'noted'
