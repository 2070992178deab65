-- List every API key, the oldest first.
-- → {about, created_ms, expires_ms or ''} of each
local rows = {}
for _, id in ipairs(redis.call('ZRANGE', keys.api_keys(), 0, -1)) do
  local known = redis.call('HMGET', keys.api_key(id), 'about', 'created_ms', 'expires_ms')
  if known[1] then rows[#rows + 1] = known end
end
return rows
