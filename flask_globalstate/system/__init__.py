"""What the operating system and the interpreter give: forks, locks, shared memory, private directories.

It may import only `errors`.
"""
