"""Training and evaluation that know no paper: the loop with exact resume, batches, checkpoints, evaluation."""
