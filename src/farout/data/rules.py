"""The names that options have for how training images are ordered and held out; `streams` says what they mean."""

from typing import Literal

OutlierOrder = Literal["shuffle", "window"]
HoldoutRule = Literal["permuted", "last", "jem"]
