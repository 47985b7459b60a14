"""farout: out-of-distribution detection, reproduced (Energy, Outlier Exposure, JEM, CIDER)."""

__version__ = "0.1.0"
