-- Every API key, the oldest first. ARGV: prefix. → {about, created_ms, expires_ms or ''} of each
local rows = {}
for _, id in ipairs(redis.call('ZRANGE', key('api-keys'), 0, -1)) do
  local known = redis.call('HMGET', key('api-key', id), 'about', 'created_ms', 'expires_ms')
  if known[1] then rows[#rows + 1] = known end
end
return rows
