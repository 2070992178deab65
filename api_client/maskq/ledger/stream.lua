-- Which events are kept. ARGV: prefix → {last id ever written, id just before the first one kept}
if redis.call('EXISTS', key('events')) == 0 then return {'0-0', '0-0'} end
local info = redis.call('XINFO', 'STREAM', key('events'))
local named = {}
for i = 1, #info, 2 do named[info[i]] = info[i + 1] end
local last, first = named['last-generated-id'], named['first-entry']
-- Trimming does not touch Redis' own 'max-deleted-entry-id' (only XDEL does): counting tells instead.
if named['entries-added'] == named['length'] then return {last, '0-0'} end
if not first then return {last, last} end
local ms, sequence = string.match(first[1], '^(%d+)-(%d+)$')
if sequence ~= '0' then return {last, ms .. '-' .. integer(sequence - 1)} end
return {last, integer(ms - 1) .. '-18446744073709551615'}
