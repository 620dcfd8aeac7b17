"""A tabulated benchmark: learning curves recorded once, on which searches are replayed."""
