package hosttest

import (
	"context"

	"connectrpc.com/connect"

	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
)

// SlowLogger answers when it is released, and says when a call has arrived.
type SlowLogger struct {
	Arrived chan struct{}
	Release chan struct{}
}

func NewSlowLogger() *SlowLogger {
	return &SlowLogger{Arrived: make(chan struct{}, 16), Release: make(chan struct{})}
}

func (l *SlowLogger) Log(ctx context.Context, _ *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	l.Arrived <- struct{}{}
	select {
	case <-l.Release:
		return connect.NewResponse(&loggerv1.LogResponse{}), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
