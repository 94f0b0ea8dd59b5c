package edge_test

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// What is no message of the service that is asked is a refusal, like any other: a stranger goes on with it for as long as with
// requests for what there is not.
func TestAudit_ATK14_WhatIsNoHandshakeIsRefused(t *testing.T) {
	t.Parallel()
	const never = 1e-6
	for name, tt := range map[string]struct {
		path   string
		fields [][2]string
		body   string
	}{
		"another content type": {handshakeProc, [][2]string{{"content-type", "text/plain"}}, "x"},
		"no content type":      {handshakeProc, nil, "x"},
		"another procedure":    {handshakeProc + "Twice", [][2]string{{"content-type", "application/proto"}}, ""},
		"another method":       {handshakeProc, [][2]string{{"content-type", "application/proto"}, {":method", "PUT"}}, ""},
		"malformed":            {handshakeProc, [][2]string{{"content-type", "application/proto"}}, "\x0b"},
		"malformed, JSON":      {handshakeProc, [][2]string{{"content-type", "application/json"}}, "{]"},
		"malformed, gRPC":      {handshakeProc, [][2]string{{"content-type", "application/grpc"}, {"te", "trailers"}}, "\x00\x00\x00\x00\x01\x0b"},
		"another compression":  {handshakeProc, [][2]string{{"content-type", "application/proto"}, {"content-encoding", "br"}}, "x"},
		"another version":      {handshakeProc, [][2]string{{"content-type", "application/proto"}, {"connect-protocol-version", "7"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(l *connectplugin.Limits) { l.RefusalsPerSecond, l.RefusalBurst = never, 4 }, nil)
			cutOff(t, r, "too many requests that were refused", http2.FrameHeaders, func(f *http2.Framer, i uint32) error {
				block := headBlock(r.Addr(), tt.path, tt.fields...)
				if strings.HasPrefix(name, "another method") {
					block = blocks(r.Addr())("PUT", tt.path, tt.fields[:1]...)
				}
				err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: tt.body == ""})
				if err == nil && tt.body != "" {
					err = f.WriteData(2*i+1, true, []byte(tt.body))
				}
				return err
			})
		})
	}
}
