"""The measured tables behind the advice of the documentation."""
