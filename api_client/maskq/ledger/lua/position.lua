-- Look at the queue before a job.
-- → see queue_place; {} for an unknown job, too
local given = unpack(ARGV, 2)
local id = known_id(given)
local at = placement(id)
if not at.model then return {} end
return queue_place(id, at)
