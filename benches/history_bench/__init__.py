"""What `benches/history.py` is made of: the log, the peers, the clock, the physical bound."""
