-- A raw Celery caller has its result. ARGV: prefix, id or alias
redis.call('ZREM', key('answers'), known_id(ARGV[2]))
return 'noted'
