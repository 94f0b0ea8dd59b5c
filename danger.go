package connectplugin

import "log/slog"

// danger returns where to warn of plaintext and of an open policy: the configured logger,
// or the program's default one where none is. Who configured no log is told of these all
// the same.
func danger(configured *slog.Logger) *slog.Logger {
	if configured == nil {
		return slog.Default()
	}
	return configured
}
