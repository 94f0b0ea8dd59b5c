package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// farOff is more than clocks may differ.
const farOff = time.Hour

// transport plays what TLS has to refuse.
func (h *hostTable) transport(ctx context.Context) {
	h.row(ctx, v1, "speaks h2 over TLS 1.3, with the certificate of the host", func(ctx context.Context) error {
		return h.as(ctx, selfCaller, func(w *wire) error {
			if w.state.NegotiatedProtocol != "h2" || w.state.Version != tls13 {
				return fmt.Errorf("%w: %q, version %x", errWrongAnswer, w.state.NegotiatedProtocol, w.state.Version)
			}
			return nil
		})
	})
	h.row(ctx, v1, "refuses TLS 1.2", func(ctx context.Context) error {
		w, err := dial(ctx, h.addr, nil, &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // to be refused
			MinVersion:         tls.VersionTLS12, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		})
		if err == nil {
			w.close()
			return errServed
		}
		return nil
	})
}

// handshakes plays those that succeed, and versions.
func (h *hostTable) handshakes(ctx context.Context) {
	h.row(ctx, v1, "enrols who is allowed to", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			return errors.Join(h.good(ctx, w, one), expectSome(one.Get(headerRuntimeID)))
		})
	})
	for _, protocol := range protocols {
		h.row(ctx, v2, "enrols who proves the secret, and proves it, over "+protocol.name, func(ctx context.Context) error {
			return h.as(ctx, selfCaller, func(w *wire) error {
				w.options = protocol.options
				m, err := w.handshake(ctx, &asks{})
				if err != nil {
					return err
				}
				return complete(m)
			})
		})
	}
	h.row(ctx, v2, "answers a proof that is bound to the connection with one that is", func(ctx context.Context) error {
		return h.as(ctx, selfCaller, func(w *wire) error {
			_, err := w.handshake(ctx, &asks{bound: true})
			return err
		})
	})
	for _, tt := range []struct {
		name           string
		low, high, app int32
		want           int32
	}{
		{"takes the highest version of both", lowestApp, highestApp - 1, highestApp - 1, highestApp - 1},
		{"takes a range that begins below its own", lowestApp, highestApp + 5, highestApp + 5, highestApp},
		{"takes the one version of a caller without a range", 0, 0, lowestApp + 1, lowestApp + 1},
	} {
		h.row(ctx, v2, tt.name, func(ctx context.Context) error {
			return h.as(ctx, selfCaller, func(w *wire) error {
				m, err := w.handshake(ctx, &asks{edit: versions(tt.low, tt.high, tt.app)})
				if err != nil {
					return err
				}
				return expect(strconv.Itoa(int(m.GetAppProtocolVersion())), strconv.Itoa(int(tt.want)))
			})
		})
	}
}

func expectSome(id string) error {
	if id == "" {
		return fmt.Errorf("%w: no runtime id", errWrongAnswer)
	}
	return nil
}

func versions(low, high, app int32) func(*connectpluginv1.HandshakeRequest) {
	return func(m *connectpluginv1.HandshakeRequest) {
		m.MinProtocolVersion, m.MaxProtocolVersion, m.AppProtocolVersion = low, high, app
	}
}

func complete(m *connectpluginv1.HandshakeResponse) error {
	if m.GetRuntimeId() == "" || m.GetRuntimeToken() == "" || m.GetCoreProtocolVersion() != 1 || len(m.GetServerNonce()) != nonceBytes ||
		m.GetTokenExpiresAt() == nil {
		return fmt.Errorf("%w: a field is missing in the answer", errWrongAnswer)
	}
	return nil
}

// refused is a handshake that a host has to refuse.
type refused struct {
	name  string
	since since
	self  string
	asks  asks
	codes []connect.Code
}

func refusedHandshakes() []refused {
	secretOnly := []connect.Code{connect.CodeUnauthenticated}
	bounds := []connect.Code{connect.CodeFailedPrecondition, connect.CodeInvalidArgument}
	type req = connectpluginv1.HandshakeRequest
	return []refused{
		{"without a proof", v2, selfCaller, asks{secret: []byte{}}, secretOnly},
		{"of the first version, for a self id with a secret", v2, selfCaller, asks{secret: []byte{}, edit: func(m *req) {
			m.ClientNonce, m.IssuedAt, m.Provides, m.Requires, m.MinProtocolVersion, m.MaxProtocolVersion = nil, nil, nil, nil, 0, 0
		}}, secretOnly},
		{"with the proof of another secret", v2, selfCaller, asks{secret: newSecret()}, secretOnly},
		{"with a field changed after the proof", v2, selfCaller, asks{forge: func(m *req) { m.SelfVersion = "6.6.6" }}, secretOnly},
		{"with a service added after the proof", v2, selfCaller, asks{forge: func(m *req) {
			m.Requires = append(m.Requires, &connectpluginv1.ServiceDependency{Type: typeNobody})
		}}, secretOnly},
		{
			"with a nonce of another size", v2, selfCaller,
			asks{forge: func(m *req) { m.ClientNonce = m.GetClientNonce()[1:] }},
			[]connect.Code{connect.CodeInvalidArgument, connect.CodeUnauthenticated},
		},
		{"that is old", v2, selfCaller, asks{edit: func(m *req) { m.IssuedAt = ago(farOff) }}, secretOnly},
		{"that is from the future", v2, selfCaller, asks{edit: func(m *req) { m.IssuedAt = ago(-farOff) }}, secretOnly},
		{"without a time", v2, selfCaller, asks{edit: func(m *req) { m.IssuedAt = (*timestamppb.Timestamp)(nil) }}, secretOnly},
		{"with a field that the host does not know, under a proof of what it knows", v2, selfCaller, asks{forge: func(m *req) {
			m.ProtoReflect().SetUnknown([]byte{0xfa, 0x3e, 1, 'x'}) // field 1007
		}}, secretOnly},
		{"of a self id that policy does not name", v1, selfStranger, asks{}, secretOnly},
		{"with another magic cookie", v1, selfCaller, asks{edit: func(m *req) { m.MagicCookieValue = "wrong" }}, bounds},
		{"with core version 2", v1, selfCaller, asks{edit: func(m *req) { m.CoreProtocolVersion = 2 }}, bounds},
		{
			"whose versions the host does not speak", v2, selfCaller,
			asks{edit: versions(highestApp+1, highestApp+2, highestApp+2)},
			[]connect.Code{connect.CodeFailedPrecondition},
		},
		{"with a range that is none", v2, selfCaller, asks{edit: versions(highestApp, lowestApp, highestApp)}, bounds},
	}
}

func (h *hostTable) refusals(ctx context.Context) {
	refusals := refusedHandshakes()
	for i := range refusals {
		r := &refusals[i]
		h.row(ctx, r.since, "refuses one "+r.name, func(ctx context.Context) error {
			return h.as(ctx, r.self, func(w *wire) error {
				m, _, err := w.request(r.self, &r.asks)
				if err != nil {
					return err
				}
				_, err = w.send(ctx, m, nil)
				return wants(err, r.codes...)
			})
		})
	}
	h.row(ctx, v2, "refuses one that was seen before", h.replay)
	h.row(ctx, v2, "refuses one that was bound to another connection", h.transplant)
}

func (h *hostTable) replay(ctx context.Context) error {
	return h.as(ctx, selfCaller, func(w *wire) error {
		m, _, err := w.request(selfCaller, &asks{})
		if err != nil {
			return err
		}
		if _, err := w.send(ctx, m, nil); err != nil {
			return fmt.Errorf("the first time: %w", err)
		}
		_, err = w.send(ctx, m, nil)
		return wants(err, connect.CodeUnauthenticated)
	})
}

func (h *hostTable) transplant(ctx context.Context) error {
	var stolen *connectpluginv1.HandshakeRequest
	err := h.as(ctx, selfCaller, func(w *wire) (err error) {
		stolen, _, err = w.request(selfCaller, &asks{bound: true})
		return err
	})
	return errors.Join(err, h.as(ctx, selfCaller, func(w *wire) error {
		_, err := w.send(ctx, stolen, nil)
		return wants(err, connect.CodeUnauthenticated)
	}))
}
