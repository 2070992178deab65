-- List the tenants that have settings, by name, or look at one.
--   wanted: its name, or '' for all
-- → see tenant_states
local wanted = unpack(ARGV, 2)
local names = {wanted}
if wanted == '' then
  names = redis.call('SMEMBERS', keys.tenants())
  table.sort(names)
end
return tenant_states(names)
