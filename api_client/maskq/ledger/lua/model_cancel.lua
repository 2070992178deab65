-- Cancel queued jobs of a model that was retired, some at a time, so that Redis is never held long.
-- ARGV: prefix, model, cap, offset in `waiting` from which to look
-- → {canceled, offset to go on from, or -1: none is left}
local model, cap, offset = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local canceled = 0

local function cancel(id)
  end_job(id, 'canceled', 'error', failure('canceled', 'its model ' .. model .. ' was retired'))
  canceled = canceled + 1
end

for _, level in ipairs(LEVELS) do
  for _, tenant in ipairs(redis.call('ZRANGE', turns_key(model, level), 0, -1)) do
    local ready = ready_key(model, level, tenant)
    for _, id in ipairs(redis.call('ZRANGE', ready, 0, cap - canceled - 1)) do
      if redis.call('HGET', record_key(id), 'status') == 'queued' then
        cancel(id)
      else
        unready(id, {model = model, level = level, tenant = tenant})
      end
    end
    if canceled >= cap then return {canceled, offset} end
  end
end
local waiting = redis.call('ZRANGE', key('waiting'), offset, offset + cap - 1)
local others = 0
for _, id in ipairs(waiting) do
  local known = redis.call('HMGET', record_key(id), 'status', 'model')
  if known[1] == 'queued' and known[2] == model then cancel(id) else others = others + 1 end
end
if #waiting < cap then
  redis.call('DEL', prefix .. '.' .. model)  -- tickets that no job needs any more
  return {canceled, -1}
end
return {canceled, offset + others}
