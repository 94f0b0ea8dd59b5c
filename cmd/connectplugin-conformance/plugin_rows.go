package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// pluginTable plays host to a plugin.
type pluginTable struct {
	*table

	stage   *stage
	process *process
	status  connectplugin.PluginStatus // of the subject
}

// playHost plays all that a plugin is asked for.
func playHost(ctx context.Context, o *options, t *table) {
	p := &pluginTable{table: t}
	var err error
	if p.stage, err = newStage(ctx, o); err != nil {
		t.note("the kit's own host and plugin", err)
		return
	}
	defer p.stage.close()
	if err := p.launch(); err != nil {
		t.note("the program starts", err)
		return
	}
	defer func() { p.process.kill() }()

	t.head("A plugin comes")
	if !p.arrival(ctx) {
		t.note("everything else", fmt.Errorf("the plugin never came; it said: %s", p.process.said))
		return
	}
	p.row(ctx, v2, "makes the proofs of test vectors, and takes no answer with another", p.provesVectors)
	t.head("Calls to it")
	p.callsTo(ctx)
	t.head("Calls from it")
	p.callsFrom(ctx)
	t.head("A busy day")
	p.busy(ctx)
	t.head("Watches")
	p.watches(ctx)
	t.head("Capabilities of the host")
	p.capabilities(ctx)
	t.head("Its identity")
	p.identity(ctx)
	t.head("Its end")
	p.end(ctx)
	t.head("Hosts that lie")
	p.lies(ctx)
}

func (p *pluginTable) launch() (err error) {
	s := p.stage
	p.process, err = launch(s.options.command, environment(s.front.url(), selfSubject, s.credentials(), s.mySecret()), s.options.verbose)
	return err
}

// mySecret is the secret that the subject is told.
func (s *stage) mySecret() []byte {
	if s.options.unproven() {
		return nil
	}
	return s.secret
}

func (p *pluginTable) arrival(ctx context.Context) bool {
	s := p.stage
	came := p.row(ctx, v1, "enrols", func(ctx context.Context) error {
		_, err := s.record.event(ctx, 0, connectplugin.AuditIssued)
		return err
	})
	came = came && p.row(ctx, v1, "registers what it provides, at an address of its own", func(ctx context.Context) (err error) {
		p.status, err = s.status(ctx, func(st *connectplugin.PluginStatus) bool {
			return slices.Contains(st.Services, typeSubject) && st.Endpoint != ""
		})
		return err
	})
	if !came {
		return false
	}
	p.row(ctx, v1, "names itself, its version and the magic cookie", func(context.Context) error { return p.checkRequest() })
	p.row(ctx, v2, "declares what it provides and requires", func(context.Context) error { return p.checkDeclared() })
	p.row(ctx, v2, "proves the secret: a nonce of 32 bytes, a time, a proof", func(context.Context) error {
		m := s.record.first()
		if len(m.GetClientNonce()) != nonceBytes || m.GetIssuedAt() == nil || len(m.GetClientProof()) == 0 {
			return fmt.Errorf("%w: a nonce of %d bytes, a time is %t, a proof of %d bytes", errWrongAnswer,
				len(m.GetClientNonce()), m.GetIssuedAt() != nil, len(m.GetClientProof()))
		}
		return nil
	})
	p.row(ctx, v1, "reports its health", func(ctx context.Context) error {
		_, err := s.status(ctx, healthIs(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY))
		return err
	})
	return true
}

func healthIs(want connectpluginv1.HealthState) func(*connectplugin.PluginStatus) bool {
	return func(st *connectplugin.PluginStatus) bool { return st.Health == want }
}

func (r *record) first() *connectpluginv1.HandshakeRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[0]
}

func (p *pluginTable) checkRequest() error {
	m := p.stage.record.first()
	if m.GetCoreProtocolVersion() != 1 || m.GetSelfId() != selfSubject || m.GetSelfVersion() == "" ||
		m.GetMagicCookieKey() != connectplugin.DefaultMagicCookieKey || m.GetMagicCookieValue() != connectplugin.DefaultMagicCookieValue {
		return fmt.Errorf("%w: core version %d, self version %q, cookie key %q", errWrongAnswer,
			m.GetCoreProtocolVersion(), m.GetSelfVersion(), m.GetMagicCookieKey())
	}
	return nil
}

func (p *pluginTable) checkDeclared() error {
	m := p.stage.record.first()
	provides := slices.ContainsFunc(m.GetProvides(), func(d *connectpluginv1.ServiceDeclaration) bool {
		return d.GetType() == typeSubject && d.GetVersion() != ""
	})
	requires := slices.ContainsFunc(m.GetRequires(), func(d *connectpluginv1.ServiceDependency) bool { return d.GetType() == typeKit })
	if !provides || !requires {
		return fmt.Errorf("%w: it declares %v and %v", errWrongAnswer, m.GetProvides(), m.GetRequires())
	}
	return nil
}

// protocols of calls, by the names of the flag.
var protocols = []struct {
	name    string
	options []connect.ClientOption
}{
	{"connect", nil},
	{"grpc", []connect.ClientOption{connect.WithGRPC()}},
	{"grpcweb", []connect.ClientOption{connect.WithGRPCWeb()}},
}

func (p *pluginTable) speaks(name string) bool {
	return slices.Contains(strings.Split(p.stage.options.protocols, ","), name)
}

// mine is what the kit calls the subject with, in a protocol that it speaks.
func (p *pluginTable) mine() []connect.ClientOption {
	for _, protocol := range protocols {
		if p.speaks(protocol.name) {
			return protocol.options
		}
	}
	return nil
}

func (p *pluginTable) callsTo(ctx context.Context) {
	for _, protocol := range protocols {
		for _, shape := range shapes {
			p.row(ctx, v1, protocol.name+", "+shape, func(ctx context.Context) error {
				if !p.speaks(protocol.name) {
					return fmt.Errorf("%w: it does not speak %s, and the router translates nothing", errNotHere, protocol.name)
				}
				return p.with(ctx, protocol.options, func(s *stub) error { return s.shape(ctx, shape) })
			})
		}
	}
	p.row(ctx, v1, "an error keeps its code and its text", func(ctx context.Context) error {
		return p.with(ctx, p.mine(), func(s *stub) error {
			_, err := s.unary(ctx, "Fail", "9 as asked")
			return expect(describe(err), "failed_precondition: as asked")
		})
	})
	p.row(ctx, v1, "it learns who calls", func(ctx context.Context) error {
		return p.with(ctx, p.mine(), func(s *stub) error {
			got, err := s.unary(ctx, "Who", "")
			return errors.Join(err, expect(got, selfCaller))
		})
	})
	p.toItself(ctx)
}

// with calls the subject through the host.
func (p *pluginTable) with(ctx context.Context, options []connect.ClientOption, f func(*stub) error) error {
	s, end, err := p.stage.subject(ctx, options...)
	if err != nil {
		return err
	}
	defer end()
	return f(s)
}

func describe(err error) string {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded.Code().String() + ": " + coded.Message()
	}
	return fmt.Sprint(err)
}

// toItself plays what comes to the plugin without a host between.
func (p *pluginTable) toItself(ctx context.Context) {
	p.row(ctx, v1, "answers the host's question for its health", func(ctx context.Context) error {
		config, err := p.stage.authority.HostTLS()
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		state, err := p.askHealth(ctx, config)
		if err != nil {
			return err
		}
		return expect(state.String(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY.String())
	})
	p.row(ctx, v2, "proves that it answers for its runtime id, and for no other", p.proves)
	p.row(ctx, v2, "serves nobody who has the certificate of another plugin", func(ctx context.Context) error {
		config, err := p.stage.authority.PluginTLS(selfCaller)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		config.VerifyConnection, config.InsecureSkipVerify = nil, true // the kit plays an intruder
		return refusal(p.askHealth(ctx, config))
	})
	p.row(ctx, v2, "serves nobody without a certificate", func(ctx context.Context) error {
		return refusal(p.askHealth(ctx, &tlsConfig{InsecureSkipVerify: true, MinVersion: tls13})) // as above
	})
}

var errServed = errors.New("it answers")

func refusal(_ connectpluginv1.HealthState, err error) error {
	if err == nil {
		return errServed
	}
	return nil
}

func (p *pluginTable) askHealth(ctx context.Context, config *tlsConfig) (connectpluginv1.HealthState, error) {
	client := direct(config)
	defer client.CloseIdleConnections()
	resp, err := connectpluginv1connect.NewPluginControlClient(client, p.status.Endpoint, p.mine()...).
		GetHealth(ctx, connect.NewRequest(&connectpluginv1.GetHealthRequest{}))
	if err != nil {
		return 0, fmt.Errorf("GetHealth: %w", err)
	}
	return resp.Msg.GetState(), nil
}

// What a subject calls with, and what comes back.
var (
	fromValues = map[string][]string{
		shapeUnary: {aValue}, shapeClient: three, shapeServer: {"3"}, shapeBidi: three,
	}
	fromWants = map[string]string{
		shapeUnary: aValue, shapeClient: strings.Join(three, ","), shapeServer: "0,1,2", shapeBidi: strings.Join(three, ","),
	}
)

func (p *pluginTable) callsFrom(ctx context.Context) {
	for _, shape := range shapes {
		p.row(ctx, v1, shape, func(ctx context.Context) error {
			return p.with(ctx, p.mine(), func(s *stub) error {
				got, err := s.have(ctx, methods[shape], fromValues[shape]...)
				if err != nil {
					return err
				}
				return expect(strings.Join(got.Values, ",")+got.Code, fromWants[shape])
			})
		})
	}
	p.row(ctx, v1, "an error keeps its code and its text", func(ctx context.Context) error {
		return p.with(ctx, p.mine(), func(s *stub) error {
			got, err := s.have(ctx, "Fail", "9 as asked")
			if err != nil {
				return err
			}
			return expect(got.Code+": "+got.Text, "failed_precondition: as asked")
		})
	})
	p.row(ctx, v1, "the provider learns that it calls", func(ctx context.Context) error {
		return p.with(ctx, p.mine(), func(s *stub) error {
			got, err := s.have(ctx, "Who", "")
			if err != nil {
				return err
			}
			return expect(strings.Join(got.Values, ""), selfSubject)
		})
	})
}
