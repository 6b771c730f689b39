"""What the promises of speed are measured with: ``make bench``."""
