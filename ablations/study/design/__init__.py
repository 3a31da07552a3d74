"""What a study is made of: arms, jobs, trunks, mixtures, tasks and held-out documents."""
