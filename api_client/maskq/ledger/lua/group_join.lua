-- Join a group of event readers; create it if it does not exist.
--   since: where a new group starts, or '' for now
-- → {'ready'} | {'lost', place}: events after `place` were trimmed; told once, the group goes on after them
local group, since = unpack(ARGV, 2)
local stream = keys.events()

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
-- '0-0': the group wants every event that is kept; it has lost none.
if place == '0-0' or not before(place, trimmed) then return {'ready'} end
-- If Redis counts reads, that shows whether the group had read the last trimmed event.
local info = by_name(redis.call('XINFO', 'STREAM', stream))
local read = about['entries-read']
if read and read >= info['entries-added'] - info['length'] then return {'ready'} end
redis.call('XGROUP', 'SETID', stream, group, trimmed)
return {'lost', place}
