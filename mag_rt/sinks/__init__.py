"""Where findings go: one module for each kind of output."""
