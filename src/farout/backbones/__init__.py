"""Networks only: images -> features -> logits. Nothing here knows about out-of-distribution detection."""

from farout.backbones.base import Backbone
from farout.backbones.foreign import load_foreign_state

__all__ = ["Backbone", "load_foreign_state"]
