-- Store a new API key.
--   digest: SHA-256 of its text; about: JSON; left_ms: until it expires, or ''
-- → {created_ms, expires_ms or ''}, or {} if there is another key of this id
local id, digest, about, left_ms = unpack(ARGV, 2)
local name = keys.api_key(id)
if redis.call('EXISTS', name) == 1 then
  -- Sent twice, because an answer was lost: the same answer.
  local known = redis.call('HMGET', name, 'digest', 'created_ms', 'expires_ms')
  if known[1] ~= digest then return {} end
  return {known[2], known[3] or ''}
end
local expires_ms = left_ms == '' and '' or integer(now + tonumber(left_ms))
redis.call('HSET', name, 'digest', digest, 'about', about, 'created_ms', integer(now),
  'expires_ms', expires_ms)
redis.call('ZADD', keys.api_keys(), now, id)
return {integer(now), expires_ms}
