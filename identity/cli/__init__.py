"""The command ``identity``: one module a group of commands, thin; what they do lives elsewhere."""
