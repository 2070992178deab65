-- Note that a raw Celery caller has its result.
--   id: or alias
local id = unpack(ARGV, 2)
redis.call('ZREM', keys.answers(), known_id(id))
return 'noted'
