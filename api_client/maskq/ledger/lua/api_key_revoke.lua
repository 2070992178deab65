-- Delete an API key.
-- → 1, or 0 if there is none
local id = unpack(ARGV, 2)
redis.call('ZREM', keys.api_keys(), id)
return redis.call('DEL', keys.api_key(id))
