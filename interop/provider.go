package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	version      = "1.0.0"
	startTime    = 20 * time.Second
	registerPoll = 10 * time.Millisecond
	providerLife = 30 * time.Minute
)

// provider is a provider's process and its registration. One goroutine uses it.
type provider struct {
	// Fixed at creation.
	stage       *stage
	peer        *peer
	serviceType string
	job         echo.Job

	client  *connectplugin.Client // on whose behalf a foreign one is registered
	process *process              // nil while there is none
	id      string                // runtime id
	port    int
}

// typeOf is the service type of a provider.
func typeOf(name string) string { return "echo." + name }

// newProvider prepares a provider; ensure starts it.
func newProvider(s *stage, o *options, p *peer, name string) (*provider, error) {
	serviceType := typeOf(name)
	j, err := s.job(o, "provider-"+name, serviceType)
	if err != nil {
		return nil, err
	}
	j.Life = int(providerLife.Seconds())
	return &provider{stage: s, peer: p, serviceType: serviceType, job: j}, nil
}

// ensure starts the provider unless it runs, and registers it.
func (p *provider) ensure(ctx context.Context) error {
	if p.process != nil {
		select {
		case <-p.process.done:
		default:
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var err error
	if p.process, err = start(p.peer, p.job); err != nil {
		return err
	}
	line, err := p.process.next(ctx)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.peer.name, err)
	}
	p.port, p.id = line.Port, line.ID
	if !p.peer.own {
		err = p.register(ctx)
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", p.peer.name, err)
	}
	return p.awaitRegistered(ctx)
}

// register registers the provider on its behalf.
func (p *provider) register(ctx context.Context) error {
	if p.client == nil {
		c, err := p.stage.enrol(ctx, p.job.Self, connectplugin.PluginMetadata{
			Provides: []connectplugin.ServiceDeclaration{{Type: p.serviceType, Version: version}},
		})
		if err != nil {
			return err
		}
		p.client = c
	}
	p.id = p.client.RuntimeID()
	_, err := p.client.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: p.serviceType, Version: version, Metadata: map[string]string{"base_url": "https://" + p.target()},
	}))
	if err != nil {
		return fmt.Errorf("call: %w", err)
	}
	return nil
}

// awaitRegistered waits until the host knows the provider and, where the one before it at the same
// runtime id was found dead, has asked it for its health.
func (p *provider) awaitRegistered(ctx context.Context) error {
	ticker := time.NewTicker(registerPoll)
	defer ticker.Stop()
	for {
		host := p.stage.host
		if len(host.Registry().GetServicesBy(p.id)) > 0 && host.Lifecycle().ShouldRouteTraffic(p.id) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not registered: %w", p.peer.name, ctx.Err())
		}
	}
}

// target is where it listens.
func (p *provider) target() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// prefix is the route to it.
func (p *provider) prefix() string { return "/services/" + p.serviceType + "/" + p.id }

// reset has the next case begin with a new process.
func (p *provider) reset() {
	if p.process != nil {
		p.process.kill()
	}
	if p.peer.own {
		p.stage.host.Revoke(p.id)
	}
}

func (p *provider) close() {
	p.reset()
	if p.client != nil {
		_ = p.client.Close()
	}
}
