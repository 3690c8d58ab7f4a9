"""Photos, splices made of them, and the truth that the networks are held to."""
