package echo

import (
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// SendWant sends a message and fails the test unless the answer is the wanted one.
func SendWant(t *testing.T, stream *connect.BidiStreamForClient[Text, Text], send, want string) {
	t.Helper()
	if err := stream.Send(wrapperspb.String(send)); err != nil {
		_, err = stream.Receive()
		t.Fatalf("send: %v", err)
	}
	if msg, err := stream.Receive(); err != nil || msg.GetValue() != want {
		t.Fatalf("got %v, %v; want %s", msg, err, want)
	}
}

// StreamEnd returns why a stream ends, in bounded time.
func StreamEnd(t *testing.T, stream *connect.BidiStreamForClient[Text, Text]) error {
	t.Helper()
	end := make(chan error, 1)
	go func() {
		_, err := stream.Receive()
		end <- err
	}()
	return hosttest.Arrival(t, end)
}
