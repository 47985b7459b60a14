"""What a command line means: arguments in, calls out. Each module is one command of scripts/, or what all share."""
