"""One run: its identity and folder; training, evaluation, sampling and attacks on it; what it records and logs."""
