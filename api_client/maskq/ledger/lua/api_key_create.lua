-- A new API key. ARGV: prefix, id, SHA-256 of its text, what is known of it (JSON), milliseconds until it
-- expires or ''. → {created_ms, expires_ms or ''}, or {} if there is a key of this id.
local id, name = ARGV[2], key('api-key', ARGV[2])
if redis.call('EXISTS', name) == 1 then
  -- Sent twice (an answer was lost on the way): the same answer.
  local known = redis.call('HMGET', name, 'digest', 'created_ms', 'expires_ms')
  if known[1] ~= ARGV[3] then return {} end
  return {known[2], known[3] or ''}
end
local expires_ms = ARGV[5] == '' and '' or integer(now + tonumber(ARGV[5]))
redis.call('HSET', name, 'digest', ARGV[3], 'about', ARGV[4], 'created_ms', integer(now),
  'expires_ms', expires_ms)
redis.call('ZADD', key('api-keys'), now, id)
return {integer(now), expires_ms}
