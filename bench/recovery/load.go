package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	followed  = 100 // services of one caller
	leastRest = 5 * time.Millisecond
	rest      = time.Millisecond // of each caller after a call that succeeded, for every provider
	unrest    = rest / 5         // after one that failed
	callLimit = 5 * time.Second
	reconnect = 200 * time.Millisecond
)

// load calls every provider all the time.
type load struct {
	clients []*connectplugin.Client
	conns   []*connectplugin.ServiceConn
	working sync.WaitGroup
	end     context.CancelFunc
	arrived *arrivals
	lag     lag
	numbers atomic.Uint64 // of calls so far

	mu     sync.Mutex
	since  time.Time
	good   []time.Duration // by provider: the first call that succeeded and began since; zero for none
	failed map[connect.Code]int
	late   []uint64 // numbers of the calls whose time was over
}

// begin connects the callers and lets them call until stop.
func (s *site) begin(ctx context.Context, authority *connectplugin.Authority, n int) (*load, error) {
	l := &load{good: make([]time.Duration, n), failed: map[connect.Code]int{}, arrived: s.arrived}
	ctx, l.end = context.WithCancel(ctx)
	certificate, err := authority.PluginTLS(callerName)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	for first := 0; first < n; first += followed {
		var requires []connectplugin.ServiceDependency
		for i := first; i < min(first+followed, n); i++ {
			requires = append(requires, connectplugin.ServiceDependency{Type: typeOf(i)})
		}
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: "https://" + s.addr, SelfID: callerName, TLS: certificate.Clone(),
			Metadata: connectplugin.PluginMetadata{Requires: requires},
		})
		if err == nil {
			err = persist(ctx, c)
		}
		if err != nil {
			return nil, fmt.Errorf("caller: %w", err)
		}
		l.clients = append(l.clients, c)
		for _, r := range requires {
			conn, err := c.Service(ctx, r.Type, "")
			if err != nil {
				return nil, fmt.Errorf("service: %w", err)
			}
			l.conns = append(l.conns, conn)
		}
	}
	l.working.Go(func() { l.lag.keep(ctx) })
	for i, conn := range l.conns {
		l.working.Go(func() { l.call(ctx, i, conn) })
	}
	return l, nil
}

// persist connects. While thousands of plugins knock from its address, the host sends some away.
func persist(ctx context.Context, c *connectplugin.Client) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := c.Connect(limited)
		if err == nil || limited.Err() != nil {
			return err //nolint:wrapcheck // the caller does
		}
		time.Sleep(reconnect)
	}
}

func (l *load) call(ctx context.Context, i int, conn *connectplugin.ServiceConn) {
	client := connect.NewClient[text, text](conn.HTTPClient(), conn.BaseURL()+say)
	for {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, callLimit)
		request, number := connect.NewRequest(wrapperspb.String("x")), l.numbers.Add(1)
		request.Header().Set(headerCall, strconv.FormatUint(number, 10))
		_, err := client.CallUnary(limited, request)
		cancel()
		if ctx.Err() != nil {
			return
		}
		l.note(i, began, number, err)
		pause := time.Duration(len(l.good)) * rest
		if err != nil {
			pause = time.Duration(len(l.good)) * unrest
		}
		t := time.NewTimer(max(leastRest, pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (l *load) note(i int, began time.Time, number uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case began.Before(l.since) && err == nil:
	case err != nil:
		code := connect.CodeOf(err)
		if l.failed[code]++; code == connect.CodeDeadlineExceeded {
			l.late = append(l.late, number)
		}
	case l.good[i] == 0:
		l.good[i] = time.Since(l.since)
	}
}

// reset begins to count anew.
func (l *load) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Now()
	clear(l.good)
	clear(l.failed)
	l.late = nil
	l.arrived.take()
}

// restart forgets who was reached and keeps what failed: times count from now.
func (l *load) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Now()
	clear(l.good)
}

// settle waits until every provider of some was called with success since the reset.
func (l *load) settle(ctx context.Context, providers int) error {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		l.mu.Lock()
		missing := slices.Contains(l.good[:providers], 0)
		l.mu.Unlock()
		if !missing {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reached returns how long it took until a provider was called, zero if it was not.
func (l *load) reached(provider int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.good[provider]
}

// result prints what happened since the reset.
func (l *load) result(providers int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	good := slices.Sorted(slices.Values(l.good[:providers]))
	codes := make([]string, 0, len(l.failed))
	for code, n := range l.failed {
		count := fmt.Sprintf("%s %d", code, n)
		if code == connect.CodeDeadlineExceeded {
			count += fmt.Sprintf(" (%d reached a provider)", l.arrived.of(l.late))
		}
		codes = append(codes, count)
	}
	slices.Sort(codes)
	at := func(share float64) time.Duration {
		return good[min(int(share*float64(len(good))), len(good)-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("%10s %10s %10s  %s", at(0), at(0.95), at(1), strings.Join(codes, ", ")) //nolint:mnd // the 95th percentile
}

func (l *load) stop() {
	l.end()
	l.working.Wait()
	for _, c := range l.clients {
		_ = c.Close()
	}
}
