-- A group of readers that share the events, made where it is not there yet.
-- ARGV: prefix, group, since or '' (from now; of a group that is there, its own place counts)
-- → {'ready'} | {'lost', place}: what came after it was trimmed away; told once, the group goes on behind
local stream, group, since = key('events'), ARGV[2], ARGV[3]

local function before(one, other)
  local ms, sequence = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_sequence = string.match(other, '^(%d+)-(%d+)$')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms < other_ms or (ms == other_ms and tonumber(sequence) < tonumber(other_sequence))
end

local function about_group()
  if redis.call('EXISTS', stream) == 0 then return nil end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local named = by_name(info)
    if named['name'] == group then return named end
  end
end

local about = about_group()
if not about then
  redis.call('XGROUP', 'CREATE', stream, group, since == '' and '$' or since, 'MKSTREAM')
  return {'ready'}
end
local place, trimmed = about['last-delivered-id'], stream_ends()[2]
-- '0-0': it wants all that are kept, and whatever went before it came is no loss.
if place == '0-0' or not before(place, trimmed) then return {'ready'} end
-- Redis' count, where it has one, tells a group that had just read the last one trimmed.
local info = by_name(redis.call('XINFO', 'STREAM', stream))
local read = about['entries-read']
if read and read >= info['entries-added'] - info['length'] then return {'ready'} end
redis.call('XGROUP', 'SETID', stream, group, trimmed)
return {'lost', place}
