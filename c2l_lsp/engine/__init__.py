"""One process's living models: state and adapter of every folder, prompts, decoding, the scheduler, the frames."""
