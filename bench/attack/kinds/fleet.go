package kinds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/stage"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

const (
	mostInstances = 100 // that enrol, as many as a host takes where nobody said otherwise
	instanceConns = 2   // of each
	watchesEach   = 64  // of a connection
	fleetPath     = "/fleet.v1."
)

// credentials are what an identity proves itself with.
type credentials struct{ runtimeID, token string }

// owned are those of the attacker's own identity.
func (a *attack) owned() *credentials {
	if a.client == nil {
		return nil
	}
	return &credentials{runtimeID: a.client.RuntimeID(), token: a.client.RuntimeToken()}
}

// fleets are attacks of a plugin with as many instances as it may have: what one may hold each of them tries to.
func fleets() []Kind {
	return []Kind{{
		Who: Plugin, Name: "many instances: connections, watches, registrations and grants",
		run: func(ctx context.Context, a *attack) error {
			var working sync.WaitGroup
			defer working.Wait()
			return a.enrols(ctx, func(n int, who *credentials) {
				for i := range instanceConns {
					working.Go(func() { a.holds(ctx, who, n*instanceConns+i) })
				}
			})
		},
	}}
}

// enrols makes instances, over one connection, until as many as may be are there or the attack is over.
func (a *attack) enrols(ctx context.Context, each func(n int, who *credentials)) error {
	transport := a.transport()
	defer transport.CloseIdleConnections()
	host := connectpluginv1connect.NewHandshakeServiceClient(&http.Client{Transport: transport}, "https://"+a.addr)
	for n := 0; n < mostInstances && ctx.Err() == nil && a.sent.Add(1) < mostFrames; {
		answer, err := host.Handshake(ctx, connect.NewRequest(&connectpluginv1.HandshakeRequest{
			CoreProtocolVersion: 1, AppProtocolVersion: 1, SelfId: stage.Bad, SelfVersion: firstVersion,
			MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
			Requires: []*connectpluginv1.ServiceDependency{{Type: stage.Echo}},
		}))
		switch {
		case err == nil:
			each(n, &credentials{runtimeID: answer.Msg.GetRuntimeId(), token: answer.Msg.GetRuntimeToken()})
			n++
		case connect.CodeOf(err) == connect.CodeResourceExhausted || connect.CodeOf(err) == connect.CodeUnavailable:
			a.refused.Add(1)
			rest(ctx)
		case ctx.Err() == nil:
			return fmt.Errorf("handshake: %w", err)
		}
	}
	return nil
}

// holds keeps what a connection of an instance can, and asks for more again and again.
func (a *attack) holds(ctx context.Context, who *credentials, number int) {
	for ctx.Err() == nil && a.sent.Load() < mostFrames {
		c, err := a.connect(ctx, true)
		if err != nil { // it comes too fast
			a.refused.Add(1)
			rest(ctx)
			continue
		}
		c.as = who
		for i := 0; err == nil; i++ {
			err = c.hold(number, i)
			pause(ctx, retries)
		}
		c.close()
	}
}

// hold asks for a watch, a registration of a type that nobody has, and a grant.
func (c *conn) hold(number, i int) error {
	err := c.more()
	if err == nil && i < watchesEach {
		err = watches(false)(c, 0)
	}
	name := fmt.Sprintf("fleet-%d-%d", number, i)
	m := &connectpluginv1.RegisterServiceRequest{
		ServiceType: name, Version: firstVersion, EndpointPath: fleetPath + name + "/",
		Metadata: map[string]string{baseURL: "https://" + net.JoinHostPort(from, strconv.Itoa(number/instanceConns+1))},
	}
	if err == nil {
		err = request(registerPath, message(m))(c, 0)
	}
	if err == nil {
		err = request(grantPath, message(&connectpluginv1.RequestCapabilityRequest{CapabilityType: stage.Tool}))(c, 0)
	}
	return errors.Join(err, c.flush())
}
