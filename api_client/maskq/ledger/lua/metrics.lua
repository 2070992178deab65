-- Read what the metrics of the deployment need. It looks at MOST_RUNNING running jobs, MOST_TENANTS tenants that
-- wait for a turn and MOST_GROUPS groups of event readers at most, however many there are.
-- → {milliseconds since the last sweep or '', running jobs, {counter, count, …}, {kind, entries, …},
--   webhooks due, milliseconds since the first of them was due or '', {group, unread or '', unconfirmed, …},
--   {row of demand_of_models, {level, jobs, age of the oldest in ms, …}} of each model}
local MOST_GROUPS = 100

local function sweeper_age()
  local swept = redis.call('HGET', keys.sweeper(), 'swept_ms')
  return swept and integer(math.max(now - swept, 0)) or ''
end

local function entries()
  local events = 0
  if redis.call('EXISTS', keys.events()) == 1 then
    events = by_name(redis.call('XINFO', 'STREAM', keys.events()))['length']
  end
  local counted = {'events', events}
  for _, set in ipairs({{'created', keys.created()}, {'ended', keys.ended()}, {'leases', keys.leases()},
      {'deadlines', keys.deadlines()}, {'waiting', keys.waiting()}, {'outputs', keys.outputs()},
      {'orphans', keys.orphans()}, {'error_files', keys.error_files()}, {'uploads', keys.uploads()},
      {'answers', keys.answers()}, {'deliveries', keys.deliveries()},
      {'deliveries_due', keys.deliveries_due()}, {'deliveries_dead', keys.deliveries_dead()}}) do
    counted[#counted + 1] = set[1]
    counted[#counted + 1] = redis.call('ZCARD', set[2])
  end
  return counted
end

local function groups()
  local found = {}
  if redis.call('EXISTS', keys.events()) == 0 then return found end
  for i, info in ipairs(redis.call('XINFO', 'GROUPS', keys.events())) do
    if i > MOST_GROUPS then break end
    local group = by_name(info)
    found[#found + 1] = group['name']
    found[#found + 1] = group['lag'] or ''
    found[#found + 1] = group['pending']
  end
  return found
end

-- How long the webhook that is due and not taken waits for a process, in milliseconds; '': none is due.
local function overdue()
  local first = redis.call('ZRANGE', keys.deliveries_due(), 0, 0, 'WITHSCORES')
  if not first[1] or tonumber(first[2]) > now then return '' end
  return integer(now - tonumber(first[2]))
end

-- The jobs of each level that may run now: {level, jobs, age of the oldest in milliseconds, …}.
local function depths(counts)
  local rows = {}
  for i, level in ipairs(LEVELS) do
    rows[#rows + 1] = level
    rows[#rows + 1] = counts.ready[i]
    rows[#rows + 1] = integer(now - (counts.oldest[i] or now))
  end
  return rows
end

local models, counts = demand_of_models()
for i, row in ipairs(models) do models[i] = {row, depths(counts[i])} end
return {sweeper_age(), redis.call('ZCARD', keys.leases()), redis.call('HGETALL', keys.counters()), entries(),
  redis.call('ZCOUNT', keys.deliveries_due(), '-inf', integer(now)), overdue(), groups(), unpack(models)}
