-- List the tenants that have settings, by name, or look at one.
--   wanted: its name, or '' for all
-- → see tenant_state, of each
local wanted = unpack(ARGV, 2)
local names = {wanted}
if wanted == '' then
  names = redis.call('SMEMBERS', keys.tenants())
  table.sort(names)
end
local running, rows = running_by('tenant'), {}
for i, name in ipairs(names) do rows[i] = tenant_state(name, running) end
return rows
