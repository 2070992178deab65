-- Cancel some queued jobs of a retired model: `cap` at a time, so that Redis never blocks for long.
--   offset: in the waiting jobs
-- → {canceled, offset to go on from, or -1: none is left}
local model, cap, offset = unpack(ARGV, 2)
cap, offset = tonumber(cap), tonumber(offset)
local canceled = 0

local function cancel(id)
  end_job(id, CANCELED, 'error', failure(CODE_CANCELED, 'its model ' .. model .. ' was retired'))
  canceled = canceled + 1
end

adopt_former_turns(model)
local tenants, held = waiting_tenants(model)
for _, tenant in ipairs(held) do tenants[#tenants + 1] = tenant end
for _, tenant in ipairs(tenants) do
  for _, level in ipairs(LEVELS) do
    local ready = keys.ready(model, level, tenant)
    for _, id in ipairs(redis.call('ZRANGE', ready, 0, cap - canceled - 1)) do
      if redis.call('HGET', keys.record(id), 'status') == QUEUED then
        cancel(id)
      else
        remove_ready(id, {model = model, level = level, tenant = tenant}, nil)
      end
    end
    if canceled >= cap then return {canceled, offset} end
  end
end
local waiting = redis.call('ZRANGE', keys.waiting(), offset, offset + cap - 1)
local others = 0
for _, id in ipairs(waiting) do
  local known = redis.call('HMGET', keys.record(id), 'status', 'model')
  if known[1] == QUEUED and known[2] == model then cancel(id) else others = others + 1 end
end
if #waiting < cap then
  redis.call('DEL', keys.queue(model))  -- tickets without jobs
  return {canceled, -1}
end
return {canceled, offset + others}
