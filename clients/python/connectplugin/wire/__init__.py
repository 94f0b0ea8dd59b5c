"""Code generated from proto/plugin/v1 by generate.sh."""
