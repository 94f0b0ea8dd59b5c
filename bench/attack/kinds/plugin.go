//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"github.com/masegraye/connect-plugin-go/bench/stage"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

const (
	registerPath   = "/connectplugin.v1.ServiceRegistry/RegisterService"
	watchPath      = "/connectplugin.v1.ServiceRegistry/WatchService"
	grantPath      = "/connectplugin.v1.CapabilityBroker/RequestCapability"
	reportPath     = "/connectplugin.v1.PluginLifecycle/ReportHealth"
	healthPath     = "/connectplugin.health.v1.HealthService/Check"
	healthWatch    = "/connectplugin.health.v1.HealthService/Watch"
	routePath      = "/services/" + stage.Echo + "/-" // whoever provides it
	flooded        = "flooded"                        // the type that the bad plugin provides
	firstVersion   = "1.0.0"
	baseURL        = "base_url" // of metadata
	streamType     = "application/connect+proto"
	manyStreams    = 10_000
	uploads        = 64
	uploaded       = 256 << 10 // bytes that one write of an upload has
	envelopeHead   = 5
	largeFields    = 25 << 10 // bytes
	retries        = 20 * time.Millisecond
	callsAtOnce    = 256
	streamsEach    = 160 // of a connection: as few connections as there may be streams
	connectionsMax = 64
	downloads      = 1_024
	fewCrowded     = 100 // connections of a plugin that poses as a stranger
	initialWindow  = 1<<16 - 1
	widestWindow   = 1<<31 - 1
)

// plugins are attacks of a plugin that holds an identity and everything that its policy
// gives to it.
func plugins() []Kind {
	list := []Kind{
		{Name: "discovery", run: flood(request(discoverPath, message(&connectpluginv1.DiscoverServiceRequest{ServiceType: stage.Echo})))},
		{Name: "registrations", run: flood(registrations)},
		{Name: "names that are looked up, and never found", run: flood(namesakes)},
		{Name: "grants", run: flood(request(grantPath, message(&connectpluginv1.RequestCapabilityRequest{CapabilityType: stage.Tool})))},
		{Name: "health reports", run: flood(reports)},
		{Name: "health questions", run: flood(request(healthPath, nil))},
		{Name: "renewals", run: renewals},
		{Name: "routed calls", run: flood(request(routePath+stage.Say, []byte("x")))},
		{Name: "routed calls, reset", run: flood(rapidReset(routePath + stage.Slow))},
		{Name: "streams opened and closed", run: flood(openedAndClosed)},
		{Name: "watches opened and kept", run: flood(watches(false))},
		{Name: "watches opened and given up", run: flood(watches(true))},
		{Name: "health watches", run: flood(request(healthWatch, envelope(nil), "content-type", streamType))},
		{Name: "watches whose request stays incomplete", run: idle(watchPath)},
		{Name: "calls to a slow provider", run: held(stage.Slow, callsAtOnce)},
		{Name: "10,000 streams", run: held(stage.Slow, manyStreams)},
		{Name: "uploads that nobody reads", run: upload},
		{Name: "downloads that it does not read", run: held(stage.Pour, manyStreams)},
		{Name: "downloads, nothing is read", run: notRead(routePath + stage.Pour)},
		{Name: "downloads on 64 connections, nothing is read", run: keepOpen(routePath+stage.Pour, false)},
		{Name: "downloads through windows of a byte", run: severally(flood(narrow, byByte))},
		{Name: "calls of many fields to a slow provider", run: severally(keptCalls)},
		{Name: "large metadata", run: flood(largeMetadata)},
		{Name: pingFlood, run: flood(func(c *conn, _ uint32) error { return c.WritePing(false, [8]byte{}) })},
		{Name: "connections", run: connections},
		{
			Name: "routed calls, and what strangers do",
			run: asStranger(flood(request(routePath+stage.Say, []byte("x"))),
				severally(flood(request(discoverPath, nil))), connections, crowd(fewCrowded, every(tenth, (*conn).shakes))),
		},
		{Name: "large metadata, and heads as of strangers", run: asStranger(flood(largeMetadata), severally(flood(bigHeaders)), connections)},
	}
	for i := range list {
		list[i].Who = Plugin
	}
	return list
}

func largeMetadata(c *conn, i uint32) error {
	return request(routePath+stage.Say, []byte("x"), "x-large", strings.Repeat(string(rune('a'+i%26)), largeFields))(c, i)
}

// asStranger does something as itself, and at the same time other things as somebody who holds nothing, from the same address.
func asStranger(own func(context.Context, *attack) error, others ...func(context.Context, *attack) error) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		stranger := &attack{authority: a.authority, addr: a.addr, begun: a.begun, tls: a.authority.ClientTLS()}
		var working sync.WaitGroup
		defer working.Wait()
		for _, do := range others {
			working.Go(func() { _ = do(ctx, stranger) })
		}
		err := own(ctx, a)
		working.Wait()
		saw := stranger.outcome()
		a.sent.Add(saw.Sent)
		a.refused.Add(saw.Refused)
		if saw.CutAfter > 0 {
			a.ended(saw.Reason)
		}
		return err
	}
}

func message(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// envelope is a message of a stream.
func envelope(m []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 1, envelopeHead+len(m)), uint32(len(m))), m...) //nolint:gosec // short
}

func registrations(c *conn, i uint32) error {
	m := &connectpluginv1.RegisterServiceRequest{
		ServiceType: flooded, Version: fmt.Sprintf("1.0.%d", i), EndpointPath: stage.Path,
		Metadata: map[string]string{baseURL: "https://" + from + ":1"},
	}
	return request(registerPath, message(m))(c, i)
}

// namesakes has the host look up another name for each registration: the servers of names that a host of the bench asks
// never answer, and so as many are open as there may be.
func namesakes(c *conn, i uint32) error {
	m := &connectpluginv1.RegisterServiceRequest{
		ServiceType: flooded, Version: firstVersion, EndpointPath: stage.Path,
		Metadata: map[string]string{baseURL: fmt.Sprintf("https://name-%d.invalid:1", i)},
	}
	return request(registerPath, message(m))(c, i)
}

func reports(c *conn, i uint32) error {
	state := connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
	if i%2 == 0 {
		state = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
	}
	return request(reportPath, message(&connectpluginv1.ReportHealthRequest{State: state}))(c, i)
}

func openedAndClosed(c *conn, _ uint32) error {
	id, err := c.open(c.cached(routePath+stage.Slow, "content-type", streamType), false)
	if err == nil {
		err = c.WriteData(id, true, envelope([]byte("x")))
	}
	if err == nil {
		err = c.WriteRSTStream(id, http2.ErrCodeCancel)
	}
	return err
}

func watches(givenUp bool) func(c *conn, i uint32) error {
	body := envelope(message(&connectpluginv1.WatchServiceRequest{ServiceType: stage.Echo}))
	open := request(watchPath, body, "content-type", streamType)
	return func(c *conn, i uint32) error {
		id := c.next
		if err := open(c, i); err != nil || !givenUp {
			return err
		}
		return c.WriteRSTStream(id, http2.ErrCodeCancel)
	}
}

// renewals asks for a new identity again and again, as nothing but the library can.
func renewals(ctx context.Context, a *attack) error {
	var working sync.WaitGroup
	for range connecting {
		working.Go(func() {
			for ctx.Err() == nil && a.sent.Add(1) < mostFrames {
				if err := a.client.Connect(ctx); connect.CodeOf(err) == connect.CodeResourceExhausted {
					a.refused.Add(1)
					rest(ctx)
				}
			}
		})
	}
	working.Wait()
	return nil
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return min(len(p), uploaded), nil }

// upload holds so many uploads at once, over as many connections as they need, and begins another where one ends.
func upload(ctx context.Context, a *attack) error {
	transport := a.transport()
	defer transport.CloseIdleConnections()
	var working sync.WaitGroup
	for range uploads {
		working.Go(func() {
			for ctx.Err() == nil && a.sent.Add(1) < mostFrames {
				if !a.call(ctx, transport, routePath+stage.Sink, endless{}) {
					rest(ctx)
				}
			}
		})
	}
	working.Wait()
	return nil
}

// held keeps so many calls open, over as many connections as they need, and begins another at once where one ends or is
// refused. What is answered is not taken: no window is opened again. It writes frames itself, so that the time it uses
// goes into the attack, and not into a client with thousands of goroutines.
func held(path string, n int) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		var working sync.WaitGroup
		conns := (n + streamsEach - 1) / streamsEach
		for range conns {
			working.Go(func() {
				for ctx.Err() == nil && a.sent.Load() < mostFrames {
					c, err := a.connect(ctx, true)
					if err != nil { // it comes too fast
						a.refused.Add(1)
						rest(ctx)
						continue
					}
					c.keep(routePath+path, int64((n+conns-1)/conns))
					c.close()
				}
			})
		}
		working.Wait()
		return nil
	}
}

// keep keeps so many calls open until the connection ends, or the attack.
func (c *conn) keep(path string, n int64) {
	for opened := int64(0); ; {
		for ; opened-c.ended.Load() < n; opened++ {
			if c.more() != nil {
				return
			}
			if _, err := c.open(c.cached(path), true); err != nil {
				return
			}
		}
		if c.flush() != nil {
			return
		}
		select {
		case <-c.ends:
		case <-c.gone:
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// keepOpen holds as many calls as one identity may have open, on as many connections as it may have. Where it reads
// nothing its windows are as wide as there are: the most that it can make a host keep.
func keepOpen(path string, read bool) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		open := make([]*conn, 0, connectionsMax)
		defer func() {
			for _, c := range open {
				c.close()
			}
		}()
		var settings []http2.Setting
		if !read {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: widestWindow})
		}
		for len(open) < connectionsMax && ctx.Err() == nil {
			c, err := a.connect(ctx, read, settings...)
			if err != nil { // it comes too fast
				a.refused.Add(1)
				rest(ctx)
				continue
			}
			open = append(open, c)
			_ = c.begin(path, downloads/connectionsMax, !read) // where it was cut off, the others stay
		}
		<-ctx.Done()
		return nil
	}
}

// begin begins so many calls.
func (c *conn) begin(path string, n int, wide bool) (err error) {
	if wide {
		err = c.WriteWindowUpdate(0, widestWindow-initialWindow)
	}
	for i := 0; i < n && err == nil; i++ {
		_, err = c.open(c.cached(path), true)
		c.attack.sent.Add(1)
	}
	return errors.Join(err, c.flush())
}

func rest(ctx context.Context) { pause(ctx, retries) }

// pause waits, unless the attack is over.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// transport opens as many connections as calls need, up to a bound.
func (a *attack) transport() *http.Transport {
	cfg := a.tls.Clone()
	cfg.NextProtos = []string{"h2"}
	cfg.ServerName = cmp.Or(cfg.ServerName, "127.0.0.1")
	return &http.Transport{
		MaxConnsPerHost: connectionsMax, ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			raw, err := a.dial(ctx)
			if err != nil {
				return nil, err
			}
			c := tls.Client(raw, cfg)
			if err := c.HandshakeContext(ctx); err != nil {
				_ = raw.Close()
				return nil, fmt.Errorf("TLS: %w", err)
			}
			return c, nil
		},
	}
}

// call makes a call, holds it until the attack ends, and says whether it was held.
func (a *attack) call(ctx context.Context, transport http.RoundTripper, path string, body io.Reader) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+a.addr+path, body)
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", "application/proto")
	r.Header.Set("X-Plugin-Runtime-Id", a.client.RuntimeID())
	r.Header.Set("Authorization", "Bearer "+a.client.RuntimeToken())
	resp, err := transport.RoundTrip(r)
	if err != nil {
		if ctx.Err() == nil {
			a.refused.Add(1)
		}
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusTooManyRequests {
		a.refused.Add(1)
		if resp.Header.Get("Retry-After") != "" {
			a.told.Store(true)
		}
		return false
	}
	if resp.StatusCode == http.StatusOK {
		<-ctx.Done()
	}
	return true
}
