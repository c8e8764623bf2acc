"""Detection power: controls in, what the rig catches, misses and accuses wrongly out."""
