"""For training loops of others; each module imports its package, and nothing else imports it."""
