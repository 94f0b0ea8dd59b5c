package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// serveRole is a program for the kit to test, on this library.
func serveRole(ctx context.Context, role string) error {
	switch role {
	case "plugin":
		return servePlugin(ctx)
	case "first":
		return serveFirst(ctx)
	case "host":
		return serveHost(ctx)
	case "first host":
		return serveFirstHost(ctx)
	default:
		return errUsage
	}
}

// ownPlugin is the subject on this library.
type ownPlugin struct {
	client atomic.Pointer[connectplugin.Client]
	health atomic.Pointer[string] // a state, and why
}

var healthNames = map[string]connectpluginv1.HealthState{
	"healthy": healthy, "degraded": degraded, "unhealthy": connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY,
}

// ownClient is what the environment says of the subject.
func ownClient() (connectplugin.ClientConfig, error) {
	secret, err := hex.DecodeString(os.Getenv(envSecret))
	if err != nil {
		return connectplugin.ClientConfig{}, fmt.Errorf("%s: %w", envSecret, err)
	}
	credentials, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: os.Getenv(envDir)})
	if err != nil {
		return connectplugin.ClientConfig{}, fmt.Errorf("%s: %w", envDir, err)
	}
	return connectplugin.ClientConfig{
		HostURL: os.Getenv(envHost), SelfID: os.Getenv(envSelf), SelfVersion: version, Secret: secret, TLS: credentials,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: typeKit}}},
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, nil
}

func servePlugin(ctx context.Context) error {
	client, err := ownClient()
	if err != nil {
		return err
	}
	o := &ownPlugin{}
	o.health.Store(new("healthy"))
	err = connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:   client,
		Services: []connectplugin.PluginService{{Type: typeSubject, Version: version, Path: base, Handler: o.handler()}},
		Health: func() (connectpluginv1.HealthState, string) {
			state, why, _ := strings.Cut(*o.health.Load(), " ")
			return healthNames[state], why
		},
		OnConnected: func(_ context.Context, c *connectplugin.Client) error {
			o.client.Store(c)
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

// handler serves what every subject does, and what it is told to do itself.
func (o *ownPlugin) handler() http.Handler {
	mux := handler()
	handle(mux, "Health", func(ctx context.Context, value string) (string, error) {
		o.health.Store(&value)
		state, why, _ := strings.Cut(value, " ")
		return value, o.client.Load().ReportHealth(ctx, healthNames[state], why, nil)
	})
	handle(mux, "Call", o.call)
	handle(mux, "Prove", proveVector)
	mux.Handle(base+"Watch", connect.NewServerStreamHandler(base+"Watch", o.watch))
	return mux
}

func (o *ownPlugin) call(ctx context.Context, value string) (string, error) {
	var said order
	if err := json.Unmarshal([]byte(value), &said); err != nil {
		return "", connect.NewError(connect.CodeInvalidArgument, err)
	}
	if said.Capability != "" {
		return o.borrow(ctx, &said)
	}
	conn, err := o.client.Load().Service(ctx, typeKit, "")
	if err != nil {
		return "", fmt.Errorf("service: %w", err)
	}
	defer conn.Close()
	return carryOut(ctx, &stub{client: conn.HTTPClient(), base: conn.BaseURL()}, &said)
}

// borrow calls a capability of the host.
func (o *ownPlugin) borrow(ctx context.Context, said *order) (string, error) {
	conn, err := o.client.Load().Capability(ctx, said.Capability, "")
	if err != nil {
		return told(err, "")
	}
	return carryOut(ctx, &stub{client: conn.HTTPClient(), base: conn.BaseURL()}, said)
}

// carryOut does what an order says and tells what came of it.
func carryOut(ctx context.Context, s *stub, said *order) (string, error) {
	var values string
	err := atOnce(max(said.AtOnce, 1), func(i int) error {
		got, err := play(ctx, s, said)
		if i == 0 {
			values = got
		}
		return err
	})
	return told(err, values)
}

// told is the outcome of a call that failed, or of one that did not.
func told(err error, values string) (string, error) {
	var result outcome
	var coded *connect.Error
	switch {
	case errors.As(err, &coded):
		result = outcome{Code: coded.Code().String(), Text: coded.Message()}
	case err != nil:
		return "", err
	default:
		result.Values = []string{values}
	}
	answer, err := json.Marshal(result)
	if err != nil {
		return "", fmt.Errorf("outcome: %w", err)
	}
	return string(answer), nil
}

func play(ctx context.Context, s *stub, said *order) (string, error) {
	switch said.Method {
	case methods[shapeClient]:
		return s.collect(ctx, said.Values)
	case methods[shapeServer]:
		return s.repeat(ctx, said.Values[0])
	case methods[shapeBidi]:
		return s.converse(ctx, said.Values)
	}
	return s.unary(ctx, said.Method, said.Values[0])
}

var stateNames = map[connectpluginv1.ServiceState]string{
	connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE:   stateAvailable,
	connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED:    stateDegraded,
	connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE: "unavailable",
}

func (o *ownPlugin) watch(ctx context.Context, r *connect.Request[text], stream *connect.ServerStream[text]) error {
	for e, err := range o.client.Load().WatchService(ctx, r.Msg.GetValue()) {
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		line, err := json.Marshal(change{
			State: stateNames[e.State], Provider: e.ProviderID, Sequence: e.Sequence, Resync: e.Resync, Missed: e.Missed,
		})
		if err != nil {
			return fmt.Errorf("change: %w", err)
		}
		if err := stream.Send(wrapperspb.String(string(line))); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	return nil
}
