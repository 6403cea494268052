"""From metrics and intervals to sentences, a picture and a page."""
