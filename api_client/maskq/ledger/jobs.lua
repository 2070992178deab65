-- Jobs, newest first. ARGV: prefix, status or '', limit, cursor or '' (the last id seen)
-- → {next cursor or '', record, record, …}, each record as HGETALL gives it
local status, limit, cursor = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local SCAN = 1000
local start = 0
if cursor ~= '' then
  local rank = redis.call('ZREVRANK', key('created'), cursor)
  if not rank then return {''} end
  start = rank + 1
end
local ids = redis.call('ZREVRANGE', key('created'), start, start + SCAN - 1)
local found = {''}
for _, id in ipairs(ids) do
  local matches = redis.call('HGET', record_key(id), 'status')
  if matches and (status == '' or matches == status) then
    found[#found + 1] = redis.call('HGETALL', record_key(id))
  end
  if #found > limit then
    found[1] = id
    return found
  end
end
if #ids == SCAN then found[1] = ids[SCAN] end
return found
