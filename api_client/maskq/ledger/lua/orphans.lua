-- Have a job's objects that no manifest names removed later.
--   member: see storage_member; for a job that was deleted meanwhile
local id, member = unpack(ARGV, 2)
if redis.call('EXISTS', keys.record(id)) == 1 then
  mark_orphans(id)
else
  add_orphans(member)
end
return 'noted'
