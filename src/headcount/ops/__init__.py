"""What the operator sees and does: logs, processes, start and stop."""
