"""The command line, a user of the library like any other: `main` finds the command, a module each runs it."""
