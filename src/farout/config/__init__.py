"""What is asked: Hydra's composition, checked and coerced into dataclasses. Names no run."""
