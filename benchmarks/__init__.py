"""Every figure that the README quotes, each from one command."""
