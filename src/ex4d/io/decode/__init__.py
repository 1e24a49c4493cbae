"""The child process that decodes untrusted media, its limits and its protocol; `client` is the way in."""
