"""What `farout.commands.torture` is made of: what is interrupted, how, and how its end is compared."""
