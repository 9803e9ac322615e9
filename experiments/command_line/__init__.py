"""What the scripts share on the command line: flags, help, errors, progress."""
