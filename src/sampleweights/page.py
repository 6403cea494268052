"""``write_page`` under the name that it had before histories became a package."""

from sampleweights.history.page import write_page

__all__ = ["write_page"]
