package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// identities plays what becomes of an identity.
func (h *hostTable) identities(ctx context.Context) {
	h.tokens(ctx)
	h.row(ctx, v1, "refuses a token on a connection with another certificate", func(ctx context.Context) error {
		return h.enrolled(ctx, func(_ *wire, one http.Header) error {
			return h.as(ctx, selfProvider, func(w *wire) error { return h.bad(ctx, w, one) })
		})
	})
	h.row(ctx, v2, "who leaves has no identity any more", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			err := w.report(ctx, &connectpluginv1.ReportHealthRequest{
				State: connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, Leaving: true,
			}, one)
			return errors.Join(err, h.bad(ctx, w, one))
		})
	})
}

// tokens plays which are good.
func (h *hostTable) tokens(ctx context.Context) {
	h.row(ctx, v2, "a renewal keeps the runtime id and changes the token", func(ctx context.Context) error {
		return h.as(ctx, selfCaller, func(w *wire) error {
			before, err := w.handshake(ctx, &asks{})
			if err != nil {
				return err
			}
			return h.renews(ctx, w, before)
		})
	})
	h.row(ctx, v1, "two handshakes are two identities", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			other, err := h.enrol(ctx, w)
			if err != nil {
				return err
			}
			if other.GetRuntimeId() == one.Get(headerRuntimeID) {
				return fmt.Errorf("%w: the same runtime id", errWrongAnswer)
			}
			return errors.Join(h.good(ctx, w, credentials(other)), h.good(ctx, w, one))
		})
	})
	h.row(ctx, v1, "refuses no token, a wrong one, and that of another identity", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			other, err := h.enrol(ctx, w)
			if err != nil {
				return err
			}
			mixed := credentials(other)
			mixed.Set(headerRuntimeID, one.Get(headerRuntimeID))
			wrong := one.Clone()
			wrong.Set("Authorization", "Bearer "+rand.Text()+rand.Text())
			return errors.Join(h.bad(ctx, w, http.Header{}), h.bad(ctx, w, wrong), h.bad(ctx, w, mixed))
		})
	})
}

// renews has an identity renewed, after which both tokens are good.
func (h *hostTable) renews(ctx context.Context, w *wire, before *connectpluginv1.HandshakeResponse) error {
	after, err := w.handshake(ctx, &asks{header: credentials(before)})
	if err != nil {
		return err
	}
	if after.GetRuntimeId() != before.GetRuntimeId() || after.GetRuntimeToken() == before.GetRuntimeToken() {
		return fmt.Errorf("%w: %s after %s", errWrongAnswer, after.GetRuntimeId(), before.GetRuntimeId())
	}
	return errors.Join(h.good(ctx, w, credentials(after)), h.good(ctx, w, credentials(before)))
}

// enrol enrols in the way that the host's version of the wire knows.
func (h *hostTable) enrol(ctx context.Context, w *wire) (*connectpluginv1.HandshakeResponse, error) {
	if !h.first {
		return w.handshake(ctx, &asks{})
	}
	m, _, err := w.request(selfCaller, &asks{secret: []byte{}, edit: versions(0, 0, lowestApp)})
	if err != nil {
		return nil, err
	}
	return w.send(ctx, m, nil)
}

// enrolled plays something with an identity of the caller's.
func (h *hostTable) enrolled(ctx context.Context, f func(*wire, http.Header) error) error {
	return h.as(ctx, selfCaller, func(w *wire) error {
		m, err := h.enrol(ctx, w)
		if err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		return f(w, credentials(m))
	})
}

// good holds that credentials are taken, bad that they are not.
func (*hostTable) good(ctx context.Context, w *wire, header http.Header) error {
	return w.report(ctx, &connectpluginv1.ReportHealthRequest{State: healthy}, header)
}

func (h *hostTable) bad(ctx context.Context, w *wire, header http.Header) error {
	return wants(h.good(ctx, w, header), connect.CodeUnauthenticated)
}

// registry plays what may be registered and found.
func (h *hostTable) registry(ctx context.Context) {
	h.row(ctx, v1, "refuses to register what policy does not allow", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			resp, err := w.registry().RegisterService(ctx, withHeader(&connectpluginv1.RegisterServiceRequest{
				ServiceType: typeSubject, Version: version, EndpointPath: base,
			}, one))
			if err == nil { // make room for the rows that follow
				_, _ = w.registry().UnregisterService(ctx, withHeader(
					&connectpluginv1.UnregisterServiceRequest{RegistrationId: resp.Msg.GetRegistrationId()}, one))
			}
			return wants(err, connect.CodePermissionDenied)
		})
	})
	h.row(ctx, v1, "refuses a version, a type and a path that are none", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			for _, m := range []*connectpluginv1.RegisterServiceRequest{
				{ServiceType: typeSubject, Version: "first"},
				{ServiceType: "../" + typeSubject, Version: version},
				{ServiceType: typeSubject, Version: version, EndpointPath: "/a/../b/"},
			} {
				_, err := w.registry().RegisterService(ctx, withHeader(m, one))
				if err := wants(err, connect.CodeInvalidArgument); err != nil {
					return err
				}
			}
			return nil
		})
	})
	h.row(ctx, v1, "knows no registration that is not the caller's", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			_, err := w.registry().UnregisterService(ctx,
				withHeader(&connectpluginv1.UnregisterServiceRequest{RegistrationId: "reg-unknown"}, one))
			return wants(err, connect.CodeNotFound)
		})
	})
	h.row(ctx, v1, "says the same of a type that is forbidden and of one that there is not", func(ctx context.Context) error {
		return h.enrolled(ctx, func(w *wire, one http.Header) error {
			_, forbidden := w.discover(ctx, typeForbidden, one)
			_, unknown := w.discover(ctx, "conformance.unknown", one)
			return errors.Join(wants(forbidden, connect.CodeNotFound), expect(describe(unknown), describe(forbidden)))
		})
	})
}
