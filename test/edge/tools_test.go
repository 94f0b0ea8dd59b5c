package edge_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// noise is what no compression shrinks.
func noise(n int) []byte {
	p, source := make([]byte, n), rand.NewChaCha8([32]byte{})
	_, _ = source.Read(p)
	return p
}

func gzipOf(t *testing.T, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func echoRegistration() *connectpluginv1.RegisterServiceRequest {
	return &connectpluginv1.RegisterServiceRequest{ServiceType: echo.Type, Version: "1.0.0", EndpointPath: echo.Base}
}

// grantOf obtains the capability "echo".
func grantOf(t *testing.T, host *hosttest.Host, c *connectplugin.Client) *connectpluginv1.CapabilityGrant {
	t.Helper()
	resp, err := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL).
		RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: echo.Type}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.GetGrant()
}

// retryHint returns when an error says to come again, zero where it does not.
func retryHint(err error) time.Duration {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return 0
	}
	for _, d := range coded.Details() {
		if d.Type() == "google.rpc.RetryInfo" {
			// Field 1 of a RetryInfo is a Duration: a tag, a length, the message.
			var delay durationpb.Duration
			if len(d.Bytes()) < 2 || proto.Unmarshal(d.Bytes()[2:], &delay) != nil {
				return 0
			}
			return delay.AsDuration()
		}
	}
	return 0
}
