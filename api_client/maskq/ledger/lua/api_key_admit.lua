-- Count a request with an API key, and return whether the key may be used.
--   digest: SHA-256 of the text shown
-- → {} unknown or another text | {'expired', about, created_ms, expires_ms}
--   | {'known', about, created_ms, expires_ms or '', requests in this minute, ms until the next minute}
local id, digest = unpack(ARGV, 2)
local name = keys.api_key(id)
local known = redis.call('HMGET', name, 'digest', 'about', 'created_ms', 'expires_ms')
if known[1] ~= digest then return {} end
if known[4] ~= '' and tonumber(known[4]) <= now then return {'expired', known[2], known[3], known[4]} end
local minute = math.floor(now / 60000)
local used = redis.call('INCR', keys.api_key_minute(id, integer(minute)))
if used == 1 then redis.call('PEXPIRE', keys.api_key_minute(id, integer(minute)), 120000) end
return {'known', known[2], known[3], known[4], used, integer((minute + 1) * 60000 - now)}
