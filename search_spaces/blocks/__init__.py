"""One file per paper. Each registers its blocks with `search_spaces.registry.register_block`."""
