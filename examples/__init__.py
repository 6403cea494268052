"""Examples; they run from a checkout of the repository, not from the installed package."""
