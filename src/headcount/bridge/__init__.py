"""The role `bridge`: copies messages of other brokers and buses into the log."""
