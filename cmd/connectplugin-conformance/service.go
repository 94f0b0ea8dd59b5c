package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service that a subject serves, and that the kit serves to it.
const (
	service = "connectplugin.conformance.v1.Subject"
	base    = "/" + service + "/"

	typeSubject = "conformance.subject"
	typeKit     = "conformance.kit"
	version     = "1.0.0"
)

type text = wrapperspb.StringValue

// stub calls the service. It is safe for concurrent use.
type stub struct {
	client  connect.HTTPClient
	base    string
	options []connect.ClientOption
}

func (s *stub) of(method string) *connect.Client[text, text] {
	return connect.NewClient[text, text](s.client, s.base+base+method, s.options...)
}

func (s *stub) unary(ctx context.Context, method, value string) (string, error) {
	resp, err := s.of(method).CallUnary(ctx, connect.NewRequest(wrapperspb.String(value)))
	if err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	return resp.Msg.GetValue(), nil
}

func (s *stub) collect(ctx context.Context, values []string) (string, error) {
	stream := s.of("Collect").CallClientStream(ctx)
	for _, v := range values {
		if err := stream.Send(wrapperspb.String(v)); err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("collect: %w", err)
		}
	}
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return "", fmt.Errorf("collect: %w", err)
	}
	return resp.Msg.GetValue(), nil
}

func (s *stub) repeat(ctx context.Context, n string) (string, error) {
	stream, err := s.of("Repeat").CallServerStream(ctx, connect.NewRequest(wrapperspb.String(n)))
	if err != nil {
		return "", fmt.Errorf("repeat: %w", err)
	}
	defer func() { _ = stream.Close() }()
	var got []string
	for stream.Receive() {
		got = append(got, stream.Msg().GetValue())
	}
	return strings.Join(got, ","), stream.Err()
}

// converse sends each value when the one before came back.
func (s *stub) converse(ctx context.Context, values []string) (string, error) {
	stream := s.of("Converse").CallBidiStream(ctx)
	defer func() { _ = stream.CloseResponse() }()
	got := make([]string, 0, len(values))
	for _, v := range values {
		if err := stream.Send(wrapperspb.String(v)); err != nil {
			_, err = stream.Receive()
			return "", fmt.Errorf("converse: %w", err)
		}
		m, err := stream.Receive()
		if err != nil {
			return "", fmt.Errorf("converse: %w", err)
		}
		got = append(got, m.GetValue())
	}
	_ = stream.CloseRequest()
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("converse ends with %w", err)
	}
	return strings.Join(got, ","), nil
}

// Shapes of calls.
const (
	shapeUnary  = "unary"
	shapeClient = "client stream"
	shapeServer = "server stream"
	shapeBidi   = "both stream"
)

var (
	shapes  = []string{shapeUnary, shapeClient, shapeServer, shapeBidi}
	methods = map[string]string{shapeUnary: "Echo", shapeClient: "Collect", shapeServer: "Repeat", shapeBidi: "Converse"}
)

// What is sent.
const aValue = "a value"

var three = []string{"one", "two", "three"}

var errWrongAnswer = errors.New("wrong answer")

func expect(got, want string) error {
	if got != want {
		return fmt.Errorf("%w: %q instead of %q", errWrongAnswer, got, want)
	}
	return nil
}

// shape plays a call of a shape.
func (s *stub) shape(ctx context.Context, shape string) error {
	var got, want string
	var err error
	switch shape {
	case shapeUnary:
		want = aValue
		got, err = s.unary(ctx, methods[shape], want)
	case shapeClient:
		want = strings.Join(three, ",")
		got, err = s.collect(ctx, three)
	case shapeServer:
		want = "0,1,2"
		got, err = s.repeat(ctx, "3")
	default:
		want = strings.Join(three, ",")
		got, err = s.converse(ctx, three)
	}
	if err != nil {
		return err
	}
	return expect(got, want)
}

// order tells a subject what to call.
type order struct {
	Method string   `json:"method"`
	Values []string `json:"values"`
	AtOnce int      `json:"atOnce,omitempty"` // so many calls; the outcome is that of the first that fails, or of the last

	Capability string `json:"capability,omitempty"` // of the host, in the place of the kit's service
}

// outcome is what came of an order.
type outcome struct {
	Values []string `json:"values,omitempty"`
	Code   string   `json:"code,omitempty"`
	Text   string   `json:"text,omitempty"`
}

// have has the subject call the kit's service.
func (s *stub) have(ctx context.Context, method string, values ...string) (*outcome, error) {
	return s.order(ctx, order{Method: method, Values: values})
}

func (s *stub) order(ctx context.Context, what order) (*outcome, error) {
	said, err := json.Marshal(what)
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	got, err := s.unary(ctx, "Call", string(said))
	if err != nil {
		return nil, err
	}
	var o outcome
	if err := json.Unmarshal([]byte(got), &o); err != nil {
		return nil, fmt.Errorf("outcome: %w", err)
	}
	return &o, nil
}

// change is an event of a watch, as the subject tells it.
type change struct {
	State    string `json:"state"`
	Provider string `json:"provider"`
	Sequence uint64 `json:"sequence"`
	Resync   bool   `json:"resync"`
	Missed   uint64 `json:"missed"`
}
