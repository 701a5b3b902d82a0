"""What a person types: the command line over `pipeline` and `ran_model`."""
