"""What the operating system and the interpreter give: forks, locks, shared memory, files."""
