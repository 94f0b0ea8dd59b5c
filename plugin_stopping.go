package connectplugin

import (
	"context"
	"net/http"
)

type stoppingKey struct{}

// Stopping returns a channel that is closed when the plugin that serves the call of ctx is
// asked to stop: by its host, by the end of [ServePlugin]'s context, or because another
// instance takes its place. Calls in flight may finish within the grace; a stream that could
// go on for ever ends itself with code unavailable then. Outside a call that ServePlugin
// serves the channel is nil, which is never closed.
func Stopping(ctx context.Context) <-chan struct{} {
	stopping, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return stopping
}

// withStopping tells the handlers of a plugin when it is stopping.
func withStopping(stopping <-chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), stoppingKey{}, stopping)))
	})
}
