"""Scaling of brokers and workers: signals, policy, forecast, leader election, rebalancing, drivers."""
