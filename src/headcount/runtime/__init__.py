"""Everything about processes: supervision, signals, ports, health and logging."""
