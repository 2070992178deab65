-- Which events are kept. ARGV: prefix → {last id ever written, last id trimmed away}
if redis.call('EXISTS', key('events')) == 0 then return {'0-0', '0-0'} end
local info = redis.call('XINFO', 'STREAM', key('events'))
local named = {}
for i = 1, #info, 2 do named[info[i]] = info[i + 1] end
return {named['last-generated-id'], named['max-deleted-entry-id']}
