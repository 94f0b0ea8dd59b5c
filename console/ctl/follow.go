package ctl

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

// again is how long a host that went away is left alone.
const again = time.Second

// following is a stream of what a host does, over the restarts of the host.
type following struct {
	read func(context.Context, *adminv1.FollowRequest) (*connect.ServerStreamForClient[adminv1.FollowResponse], error)
	ask  *adminv1.FollowRequest
	take func(*adminv1.FollowResponse) error

	begun time.Time // the host that was seen last, zero before the first
	other bool      // another one is there, whose events have other numbers
	wrong error     // of take
}

// follow calls take for everything that the host sends, until ctx ends. A host that goes away is waited for;
// one that refuses, or was never there, is not.
func (t *tool) follow(ctx context.Context, o *operator, ask *adminv1.FollowRequest, take func(*adminv1.FollowResponse) error) error {
	f := &following{
		read: func(ctx context.Context, ask *adminv1.FollowRequest) (*connect.ServerStreamForClient[adminv1.FollowResponse], error) {
			return o.read.Follow(ctx, connect.NewRequest(ask))
		},
		ask: ask, take: take,
	}
	for away := false; ; {
		seen, err := f.once(ctx, func() {
			if away {
				fmt.Fprintln(t.err, "connectpluginctl: the host is followed again")
			}
			away = false
		})
		switch {
		case f.wrong != nil, ctx.Err() != nil:
			return err
		case f.other:
			f.other, ask.After = false, 0
			continue
		case !seen && !away:
			return err
		case !goesAway(err):
			return &endedError{err}
		case !away:
			fmt.Fprintln(t.err, "connectpluginctl: the host went away or ended the stream ("+clean(reasonOf(err))+"); trying again")
		}
		away = true
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

// once follows until the stream ends. It reports whether there was one, and calls begin before its first message.
func (f *following) once(ctx context.Context, begin func()) (seen bool, err error) {
	stream, err := f.read(ctx, f.ask)
	if err != nil {
		return false, err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		m := stream.Msg()
		if f.other = f.another(m); f.other {
			return seen, nil
		}
		if !seen {
			begin()
		}
		seen = true
		if n := len(m.GetEvents()); n > 0 {
			f.ask.After = m.GetEvents()[n-1].GetSequence()
		}
		if f.wrong = f.take(m); f.wrong != nil {
			return seen, f.wrong
		}
	}
	return seen, stream.Err()
}

// another reports whether a message is of a host that began anew, and was asked for the events after those of
// the one before.
func (f *following) another(m *adminv1.FollowResponse) bool {
	if m.GetSnapshot() == nil {
		return false
	}
	begun := m.GetSnapshot().GetHost().GetStartedAt().AsTime()
	was := f.begun
	f.begun = begun
	return !was.IsZero() && !was.Equal(begun) && f.ask.GetAfter() > 0
}

// goesAway reports whether a stream ended as it does where the host does: whatever it is that breaks off then.
// A host that refuses says so in other words.
func goesAway(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied, connect.CodeNotFound, connect.CodeUnimplemented, connect.CodeInvalidArgument,
		connect.CodeResourceExhausted, connect.CodeFailedPrecondition:
		return false
	default:
		return true
	}
}

// endedError says that the host refuses who followed it before.
type endedError struct{ error }

func (e *endedError) Unwrap() error { return e.error }

// reasonOf says how a stream ended.
func reasonOf(err error) string {
	if err == nil {
		return "it ended the stream"
	}
	return connect.CodeOf(err).String()
}
