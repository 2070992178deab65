-- An API key stops working. ARGV: prefix, id. → 1, or 0 if there is none
redis.call('ZREM', key('api-keys'), ARGV[2])
return redis.call('DEL', key('api-key', ARGV[2]))
