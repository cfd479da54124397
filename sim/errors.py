"""What goes wrong because of what the user gave, not because of a bug."""


class UserError(Exception):
    """A mistake the user can mend. The command line prints its one line and exits with code 2."""
