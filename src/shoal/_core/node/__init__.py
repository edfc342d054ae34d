"""The node daemon's decisions: leases, workers, local objects.  Pure."""
