"""Where weights come from: downloads, files of other projects, checkpoints of ours."""
