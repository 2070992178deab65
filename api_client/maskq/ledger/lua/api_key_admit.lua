-- Whether an API key may be used now; counts the request. ARGV: prefix, id, SHA-256 of the text shown.
-- → {} unknown or another text | {'expired', about} | {'known', about, created_ms, expires_ms or '',
--   requests in this minute, milliseconds until the next one}
local name = key('api-key', ARGV[2])
local known = redis.call('HMGET', name, 'digest', 'about', 'created_ms', 'expires_ms')
if known[1] ~= ARGV[3] then return {} end
if known[4] ~= '' and tonumber(known[4]) <= now then return {'expired', known[2], known[3], known[4]} end
local minute = math.floor(now / 60000)
local used = redis.call('INCR', key('api-key', ARGV[2], integer(minute)))
if used == 1 then redis.call('PEXPIRE', key('api-key', ARGV[2], integer(minute)), 120000) end
return {'known', known[2], known[3], known[4], used, integer((minute + 1) * 60000 - now)}
