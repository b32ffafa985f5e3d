"""The fix log: the partitioned stream of everything that devices said in the last hour."""
