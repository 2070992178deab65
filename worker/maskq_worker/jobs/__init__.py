"""One job from its claim to its outcome: leases, stages, memory budget, retention."""
