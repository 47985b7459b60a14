"""Networks and outputs that were made elsewhere: every score, every protocol, one call."""
