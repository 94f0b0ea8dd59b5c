package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// stateWords are what a subject is told to be.
var stateWords = map[connectpluginv1.HealthState]string{degraded: "degraded for a while", healthy: "healthy"}

// identity plays what happens to the subject's identity while it runs.
func (p *pluginTable) identity(ctx context.Context) {
	s := p.stage
	p.row(ctx, v1, "tells the host when its health changes", func(ctx context.Context) error {
		return p.with(ctx, p.mine(), func(stub *stub) error {
			for _, state := range []connectpluginv1.HealthState{degraded, healthy} {
				if _, err := stub.unary(ctx, "Health", stateWords[state]); err != nil {
					return err
				}
				if _, err := s.status(ctx, healthIs(state)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	p.row(ctx, v2, "renews its token and keeps its runtime id", func(ctx context.Context) error {
		renewed, err := s.record.event(ctx, 0, connectplugin.AuditRenewed)
		if err != nil {
			return err
		}
		return errors.Join(expect(renewed.RuntimeID, p.status.RuntimeID), p.works(ctx))
	})
	p.row(ctx, v2, "enrols anew when its identity was ended", func(ctx context.Context) error {
		return p.anew(ctx, func() error {
			s.host.Revoke(p.status.RuntimeID)
			return nil
		})
	})
	another := func(ctx context.Context) error { return p.eventually(ctx, p.lends) }
	p.row(ctx, v2, "has another grant of a capability then", another)
	p.row(ctx, v2, "comes back after the loss of its host", func(ctx context.Context) error {
		return p.anew(ctx, func() error { return s.restart(ctx) })
	})
	p.row(ctx, v2, "has another grant of a capability of that one", another)
}

// works calls the subject, and has it call.
func (p *pluginTable) works(ctx context.Context) error {
	return p.with(ctx, p.mine(), func(s *stub) error {
		if err := s.shape(ctx, shapeUnary); err != nil {
			return err
		}
		got, err := s.have(ctx, methods[shapeUnary], "again")
		if err != nil {
			return err
		}
		return expect(fmt.Sprint(got.Values, got.Code, got.Text), fmt.Sprint([]string{"again"}, "", ""))
	})
}

// anew waits until the subject has another identity than before f and works.
func (p *pluginTable) anew(ctx context.Context, f func() error) error {
	before := p.status.RuntimeID
	if err := f(); err != nil {
		return err
	}
	status, err := p.stage.status(ctx, func(st *connectplugin.PluginStatus) bool {
		return st.RuntimeID != before && slices.Contains(st.Services, typeSubject) && st.Health == healthy
	})
	if err != nil {
		return err
	}
	p.status = status
	return p.eventually(ctx, p.works)
}

// eventually tries until something works: news of a change takes its time.
func (p *pluginTable) eventually(ctx context.Context, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if connect.CodeOf(err) != connect.CodeUnavailable && !errors.Is(err, errWrongAnswer) {
			return err
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
		}
	}
}

// end plays how the subject ends.
func (p *pluginTable) end(ctx context.Context) {
	s := p.stage
	mark := s.record.mark()
	asked := p.row(ctx, v1, "ends when the host asks, and answers that", func(ctx context.Context) error {
		if err := p.askEnd(ctx); err != nil {
			return err
		}
		return p.process.exited(ctx)
	})
	p.row(ctx, v2, "says that it leaves", func(ctx context.Context) error {
		if !asked {
			return errStillRuns
		}
		return s.left(ctx, mark)
	})
	p.process.kill()
	if err := p.launch(); err != nil {
		p.note("starts again", err)
		return
	}
	mark = s.record.mark()
	p.row(ctx, v1, "on SIGTERM finishes the calls in flight, and ends", func(ctx context.Context) error {
		_, err := s.status(ctx, func(st *connectplugin.PluginStatus) bool {
			return st.RuntimeID != p.status.RuntimeID && slices.Contains(st.Services, typeSubject)
		})
		if err != nil {
			return err
		}
		if err := p.eventually(ctx, p.works); err != nil {
			return err
		}
		return p.finishes(ctx)
	})
	p.row(ctx, v2, "leaves then, too", func(ctx context.Context) error { return s.left(ctx, mark) })
	p.process.kill()
}

// left waits for the end of the subject's identity, of its own will.
func (s *stage) left(ctx context.Context, mark int) error {
	e, err := s.record.event(ctx, mark, connectplugin.AuditEnded)
	if err != nil {
		return err
	}
	return expect(e.Reason, "left")
}

func (p *pluginTable) askEnd(ctx context.Context) error {
	config, err := p.stage.authority.HostTLS()
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	client := direct(config)
	defer client.CloseIdleConnections()
	resp, err := connectpluginv1connect.NewPluginControlClient(client, p.status.Endpoint, p.mine()...).
		Shutdown(ctx, connect.NewRequest(&connectpluginv1.ShutdownRequest{Reason: "a row asks"}))
	if err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	if !resp.Msg.GetAcknowledged() {
		return fmt.Errorf("%w: not acknowledged", errWrongAnswer)
	}
	return nil
}

// finishes has a call in flight while the process is asked to end.
func (p *pluginTable) finishes(ctx context.Context) error {
	return p.with(ctx, p.mine(), func(s *stub) error {
		stream := s.of("Converse").CallBidiStream(ctx)
		defer func() { _ = stream.CloseResponse() }()
		if err := roundTrip(stream, "before"); err != nil {
			return err
		}
		mark := p.stage.record.mark()
		p.process.signal()
		if _, err := p.stage.record.event(ctx, mark, connectplugin.AuditUnregistered); err != nil {
			return fmt.Errorf("it does not withdraw what it offers: %w", err)
		}
		if err := roundTrip(stream, "after"); err != nil {
			return err
		}
		_ = stream.CloseRequest()
		return p.process.exited(ctx)
	})
}

func roundTrip(stream *connect.BidiStreamForClient[text, text], value string) error {
	if err := stream.Send(wrapperspb.String(value)); err != nil {
		_, err = stream.Receive()
		return fmt.Errorf("in flight: %w", err)
	}
	m, err := stream.Receive()
	if err != nil {
		return fmt.Errorf("in flight: %w", err)
	}
	return expect(m.GetValue(), value)
}
