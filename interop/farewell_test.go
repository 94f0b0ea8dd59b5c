package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/interop/echo"
	"github.com/masegraye/connect-plugin-go/interop/peers/grpcgo"
)

const (
	farewellTime = 2 * time.Minute
	afterwards   = 20 // messages each way
)

// TestShutdown_ForeignProvidersBearTheFarewell has a host shut down over a stream at each peer that is installed: what is open goes on to
// its end after the providers were told.
func TestShutdown_ForeignProvidersBearTheFarewell(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), farewellTime)
	defer cancel()
	peers := standing(t)
	all := make([]string, 0, len(peers))
	for _, p := range peers {
		all = append(all, typeOf(p.name))
	}
	s, err := newStage(ctx, slog.New(slog.DiscardHandler), all)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	streams := map[string]echo.CallerStream{}
	var last echo.Caller
	for _, p := range peers {
		last = open(ctx, t, s, p, streams)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.host.Shutdown(ctx) }()
	for {
		if _, err := last.Unary(ctx, echo.MethodCount, nil); err != nil {
			break // the host lets in no more calls
		}
	}
	for name, stream := range streams {
		if err := goOn(stream); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// standing returns the peers that are installed and have streams.
func standing(t *testing.T) []*peer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(self, "peers", filepath.Join(cache, "connectplugin", "interop"))
	var found []*peer
	for _, name := range w.order[0] {
		p := w.providers[name]
		if _, files := p.without[echo.CaseBidi]; files {
			continue
		}
		if why := p.missing(t.Context()); why != "" {
			t.Logf("%s is not installed: %s", name, why)
			continue
		}
		t.Log(name, p.version(t.Context()))
		found = append(found, p)
	}
	return found
}

// open starts a provider, and opens a stream to it through the host.
func open(ctx context.Context, t *testing.T, s *stage, p *peer, streams map[string]echo.CallerStream) echo.Caller {
	t.Helper()
	prov, err := newProvider(s, &options{}, p, p.name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prov.close)
	if err := prov.ensure(ctx); err != nil {
		t.Fatal(err)
	}
	j, err := s.job(&options{}, callerID, prov.serviceType)
	if err != nil {
		t.Fatal(err)
	}
	j.Target, j.Prefix, j.ID, j.Token = s.addr, prov.prefix(), s.caller.RuntimeID(), s.caller.RuntimeToken()
	c, err := grpcgo.Dial(j)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	stream, err := c.Open(ctx, echo.MethodBidi)
	if err == nil {
		err = exchange(stream, "before")
	}
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	streams[p.name] = stream
	return c
}

func exchange(stream echo.CallerStream, text string) error {
	if err := stream.Send([]byte(text)); err != nil {
		return err
	}
	got, err := stream.Receive()
	if err == nil && string(got) != text {
		err = errors.New("another message: " + string(got))
	}
	return err
}

// goOn sends more on a stream, and ends it.
func goOn(stream echo.CallerStream) error {
	for _, text := range slices.Repeat([]string{"after"}, afterwards) {
		if err := exchange(stream, text); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	got, err := stream.Receive()
	if err == nil && string(got) != echo.Done {
		err = errors.New("another end: " + string(got))
	}
	if err != nil {
		return err
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		return errors.New("it has no end")
	}
	return nil
}
