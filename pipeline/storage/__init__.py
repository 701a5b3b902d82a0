"""Where a dataset lives: a local folder or an object store, behind one small interface."""
