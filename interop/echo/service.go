package echo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"
)

// Name is the service's, Base where its procedures lie.
const (
	Name = "interop.v1.Echo"
	Base = "/" + Name + "/"
)

// The methods.
const (
	MethodUnary  = "Unary"
	MethodClient = "Client"
	MethodServer = "Server"
	MethodBidi   = "Bidi"
	MethodFail   = "Fail"
	MethodSleep  = "Sleep"
	MethodCount  = "Count"
)

// FailText is the text of what Fail fails with, Done the last message of Bidi.
const (
	FailText = "as asked"
	Done     = "done"
)

const (
	codeInvalid = 3 // of a question that is none
	decimal     = 10
)

// CallError is an error as the service means it; the peers put it into the form of
// their library.
type CallError struct {
	Code   uint32 // of gRPC
	Text   string
	Detail []byte // the value of a BytesValue, nil for none
}

// Error says what failed.
func (f *CallError) Error() string { return f.Text }

// Detail is a detail of so many bytes.
func Detail(size int) []byte { return bytes.Repeat([]byte("d"), size) }

// Stream is one end of a stream: a server's, or a caller's. Receive returns io.EOF
// where the other side has ended.
type Stream interface {
	Receive() ([]byte, error)
	Send(message []byte) error
}

// Service is the handlers. Its zero value is ready, and safe for concurrent use.
type Service struct {
	running atomic.Int64
}

// Unary serves the methods with one request and one answer.
func (s *Service) Unary(ctx context.Context, method string, in []byte) ([]byte, error) {
	switch method {
	case MethodFail:
		return nil, fail(in)
	case MethodSleep:
		return in, s.sleep(ctx, in)
	case MethodCount:
		return strconv.AppendInt(nil, s.running.Load(), decimal), nil
	default:
		return in, nil
	}
}

// Stream serves the methods with streams.
func (s *Service) Stream(_ context.Context, method string, stream Stream) error {
	switch method {
	case MethodClient:
		return serveClient(stream)
	case MethodServer:
		return serveServer(stream)
	default:
		return s.serveBidi(stream)
	}
}

func fail(in []byte) error {
	f := &CallError{Text: FailText}
	var size int
	if _, err := fmt.Sscan(string(in), &f.Code, &size); err != nil {
		return &CallError{Code: codeInvalid, Text: err.Error()}
	}
	f.Detail = Detail(size)
	return f
}

func (s *Service) sleep(ctx context.Context, in []byte) error {
	ms, err := strconv.Atoi(string(in))
	if err != nil {
		return &CallError{Code: codeInvalid, Text: err.Error()}
	}
	s.running.Add(1)
	defer s.running.Add(-1)
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func serveClient(stream Stream) error {
	total := 0
	for {
		in, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return stream.Send(strconv.AppendInt(nil, int64(total), decimal))
		}
		if err != nil {
			return err
		}
		total += len(in)
	}
}

func serveServer(stream Stream) error {
	in, err := stream.Receive()
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(in))
	if err != nil {
		return &CallError{Code: codeInvalid, Text: err.Error()}
	}
	for i := range n {
		if err := stream.Send(strconv.AppendInt(nil, int64(i), decimal)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) serveBidi(stream Stream) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	for {
		in, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return stream.Send([]byte(Done))
		}
		if err == nil {
			err = stream.Send(in)
		}
		if err != nil {
			return err
		}
	}
}
