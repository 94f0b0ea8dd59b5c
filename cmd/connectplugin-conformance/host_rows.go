package main

import (
	"context"
)

func playPlugins(ctx context.Context, o *options, t *table) { _, _, _ = ctx, o, t }
