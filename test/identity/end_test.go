package identity_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// One revocation ends the identity everywhere, streams in flight included, with a
// clear code.
func TestAudit_PROTO31_RevocationEndsEverything(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
	})
	c := host.Enrol(t, "all", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires, c.Metadata.Provides = hosttest.Requires("logger"), hosttest.Provides("logger")
	})
	id, token := c.RuntimeID(), c.RuntimeToken()
	if _, err := hosttest.Register(t, c, "logger", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	broker := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL)
	grant, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	if err != nil {
		t.Fatal(err)
	}
	var ends sync.WaitGroup
	codes := make(chan connect.Code, 6)
	for _, opts := range hosttest.Protocols {
		stream, err := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL, opts...).WatchService(t.Context(),
			hosttest.WithCredentials(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}, id, token))
		if err != nil || !stream.Receive() {
			t.Fatalf("watch: %v %v", err, stream.Err())
		}
		ends.Go(func() {
			for stream.Receive() {
			}
			codes <- connect.CodeOf(stream.Err())
		})
	}
	if !host.Revoke(id) {
		t.Fatal("Revoke found no identity")
	}
	ends.Wait()
	close(codes)
	for code := range codes {
		if code != connect.CodeUnauthenticated {
			t.Errorf("a watch in flight ended with %v, want unauthenticated", code)
		}
	}
	if code := hosttest.ReportAs(t, host, id, token); code != connect.CodeUnauthenticated {
		t.Errorf("token: %v", code)
	}
	req := connect.NewRequest(&loggerv1.LogRequest{})
	req.Header().Set("Authorization", "Bearer "+grant.Msg.GetGrant().GetBearerToken())
	_, err = loggerv1connect.NewLoggerClient(host.Stranger(t), grant.Msg.GetGrant().GetEndpointUrl()).Log(t.Context(), req)
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("grant: %v", err)
	}
	if host.Registered("logger", id) {
		t.Error("the registration is still there")
	}
	if host.Revoke(id) {
		t.Error("a second revocation found the identity")
	}
}

// Nobody presents an expired token, and yet what hung on it is gone, a watch in
// flight included.
func TestAudit_PROTO31_TokensExpireWithoutBeingPresented(t *testing.T) {
	t.Parallel()
	const ttl = time.Hour
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.RuntimeTokenTTL = hosttest.Unproven("api"), ttl
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		m := h.Enrol(t, nil)
		client := h.HTTPClient(t)
		_, err := connectpluginv1connect.NewServiceRegistryClient(client, wire.BubbleURL).RegisterService(t.Context(),
			hosttest.WithCredentials(&connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0"}, m.GetRuntimeId(), m.GetRuntimeToken()))
		if err != nil {
			t.Fatal(err)
		}
		watch, err := connectpluginv1connect.NewServiceRegistryClient(client, wire.BubbleURL).WatchService(t.Context(),
			hosttest.WithCredentials(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}, m.GetRuntimeId(), m.GetRuntimeToken()))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan connect.Code, 1)
		go func() {
			for watch.Receive() {
			}
			ended <- connect.CodeOf(watch.Err())
		}()
		registered := func() bool { return len(h.Registry().GetAllProviders("logger")) == 1 }
		<-time.After(ttl - time.Second)
		synctest.Wait()
		if !registered() || len(ended) != 0 {
			t.Error("before its time: the registration or the watch is gone")
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if registered() || len(ended) != 1 {
			t.Error("the registration or the watch of an expired identity is still there")
			return
		}
		hosttest.WantCode(t, "the watch", <-ended, connect.CodeUnauthenticated)
		_, err = connectpluginv1connect.NewPluginLifecycleClient(client, wire.BubbleURL).ReportHealth(t.Context(),
			hosttest.WithCredentials(&connectpluginv1.ReportHealthRequest{}, m.GetRuntimeId(), m.GetRuntimeToken()))
		hosttest.WantCode(t, "the expired token", connect.CodeOf(err), connect.CodeUnauthenticated)
	})
}

// A connected client outlives its token's lifetime by renewing.
func TestAudit_REG5_ClientRenewsBeforeExpiry(t *testing.T) {
	t.Parallel()
	const ttl, lifetimes = time.Hour, 10
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.RuntimeTokenTTL = hosttest.LoggerPolicy(), ttl
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: wire.BubbleURL, SelfID: "api", Secret: hosttest.Secret, HTTPClient: h.HTTPClient(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		id, tokens := c.RuntimeID(), map[string]bool{}
		for range lifetimes {
			<-time.After(ttl)
			tokens[c.RuntimeToken()] = true
			if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
				t.Error(err)
			}
		}
		if c.RuntimeID() != id || len(tokens) != lifetimes {
			t.Errorf("after %d lifetimes: id %s became %s, %d tokens", lifetimes, id, c.RuntimeID(), len(tokens))
		}
	})
}
