-- What a job waits for.
-- → {} for an unknown job | {{fact, value, …}, place: see queue_place}
local given = unpack(ARGV, 2)
local id = known_id(given)
local known = by_name(redis.call('HGETALL', keys.record(id)))
if not known.status then return {} end
local model, tenant = known.model, known.tenant or ''
local facts = {'status', known.status, 'model', model, 'tenant', tenant, 'attempt', known.attempt}

local function add(name, value)
  if not value then return end
  facts[#facts + 1] = name
  facts[#facts + 1] = value
end

add('owner', known.owner)
add('error', known.error)
if known.status ~= QUEUED then return {facts, {}} end
add('alone', known.alone)
add('delay_ms', known.not_before_ms and integer(known.not_before_ms - now))
add('workers', live_count(model))
add('away', redis.call('ZCOUNT', keys.store_away(model), '(' .. integer(now), '+inf'))
add('is_waiting', redis.call('ZSCORE', keys.waiting(), id) and 1)
local most, free = running_cap(tenant)
if most then
  add('max_running', most)
  add('free', free)
end
return {facts, queue_place(id, {model = model, level = known.priority, tenant = tenant})}
