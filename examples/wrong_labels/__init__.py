"""Which score finds wrong labels best? See __main__.py."""
