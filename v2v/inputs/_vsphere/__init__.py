"""vCenter and ESXi hosts as they show themselves through their API."""
