"""The accuracy of counts: the engine and other rules on fixes with a known truth."""
