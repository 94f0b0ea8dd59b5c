package delegate

import "context"

// abortAtEnd gives a stream up when ctx ends, until release is called, which waits. Once
// the response has begun, the HTTP/2 clients of Go do not look at the context of a request
// whose body is open: a pending read goes on waiting, and the server is told nothing.
// Closing the response ends both. The request is not ended: the server would take what it
// has for the whole.
func abortAtEnd(ctx context.Context, closeResponse func() error) (release func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = closeResponse()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}
