-- List jobs, the newest first, or in the order in which they ended.
--   cursor: 'score:id' of the last one seen, or ''; ended_since: ms or ''; then filters, '' for any;
--   image: how the request of the source's image begins, whatever its version
-- → {next cursor or '', record, record, …}, each record as HGETALL gives it
local limit, cursor, ended_since, status, code, model, tenant, batch, source, image = unpack(ARGV, 2)
limit = tonumber(limit)
local SCAN = 1000

local function matches(id)
  local known = redis.call('HMGET', keys.record(id), 'status', 'model', 'tenant', 'batch_id', 'error',
    'source', 'request')
  if not known[1] then return false end
  if status ~= '' and known[1] ~= status then return false end
  if model ~= '' and known[2] ~= model then return false end
  if tenant ~= '' and known[3] ~= tenant then return false end
  if batch ~= '' and known[4] ~= batch then return false end
  if source ~= '' and known[6] ~= source
    and (image == '' or string.sub(known[7], 1, #image) ~= image) then return false end
  return code == '' or (known[5] and cjson.decode(known[5])['code'] == code)
end

-- From the cursor on. Members of one score are in the order of their names, so the cursor stays valid if
-- its record was deleted meanwhile.
local forward = ended_since ~= ''
local score, last = string.match(cursor, '^(%d+):(.*)$')
local ids
if forward then
  ids = redis.call('ZRANGE', keys.ended(), score or ended_since, '+inf', 'BYSCORE', 'LIMIT', 0, SCAN,
    'WITHSCORES')
else
  ids = redis.call('ZRANGE', keys.created(), score or '+inf', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0,
    SCAN, 'WITHSCORES')
end
local found = {''}
for i = 1, #ids, 2 do
  local id, at = ids[i], ids[i + 1]
  local seen = score and at == score and ((forward and id <= last) or (not forward and id >= last))
  if not seen and matches(id) then
    found[#found + 1] = redis.call('HGETALL', keys.record(id))
    if #found > limit then
      found[1] = at .. ':' .. id
      return found
    end
  end
end
if #ids == 2 * SCAN then found[1] = ids[#ids] .. ':' .. ids[#ids - 1] end
return found
