"""Many processes, one model: how they meet, what each holds, what they send one another."""
