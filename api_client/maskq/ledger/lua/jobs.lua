-- Jobs, newest first, or (ended_since) in the order in which they ended.
-- ARGV: prefix, limit, cursor or '' ('score:id' of the last one seen), ended_since (ms) or '',
--       then filters: status, failure code, model, tenant, batch id; each '' for any
-- → {next cursor or '', record, record, …}, each record as HGETALL gives it
local limit, cursor, ended_since = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local status, code, model, tenant, batch = unpack(ARGV, 5, 9)
local SCAN = 1000

local function matches(id)
  local known = redis.call('HMGET', record_key(id), 'status', 'model', 'tenant', 'batch_id', 'error')
  if not known[1] then return false end
  if status ~= '' and known[1] ~= status then return false end
  if model ~= '' and known[2] ~= model then return false end
  if tenant ~= '' and known[3] ~= tenant then return false end
  if batch ~= '' and known[4] ~= batch then return false end
  return code == '' or (known[5] and cjson.decode(known[5])['code'] == code)
end

-- From where the cursor points. A record of the cursor that is gone meanwhile does no harm: members of
-- one score are in the order of their names.
local forward = ended_since ~= ''
local score, last = string.match(cursor, '^(%d+):(.*)$')
local ids
if forward then
  ids = redis.call('ZRANGE', key('ended'), score or ended_since, '+inf', 'BYSCORE', 'LIMIT', 0, SCAN,
    'WITHSCORES')
else
  ids = redis.call('ZRANGE', key('created'), score or '+inf', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0,
    SCAN, 'WITHSCORES')
end
local found = {''}
for i = 1, #ids, 2 do
  local id, at = ids[i], ids[i + 1]
  local seen = score and at == score and ((forward and id <= last) or (not forward and id >= last))
  if not seen and matches(id) then
    found[#found + 1] = redis.call('HGETALL', record_key(id))
    if #found > limit then
      found[1] = at .. ':' .. id
      return found
    end
  end
end
if #ids == 2 * SCAN then found[1] = ids[#ids] .. ':' .. ids[#ids - 1] end
return found
