"""The parts of a study: arms, jobs, trunks, mixtures, tasks and held-out documents."""
