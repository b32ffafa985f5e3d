"""What the command line and the HTTP API both do, once, with its audit entry and its roll-back."""
