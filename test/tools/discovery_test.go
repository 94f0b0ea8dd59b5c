package tools_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

var _ connectplugin.DiscoveryService = (*connectplugin.StaticDiscovery)(nil)

func discoveryEndpoint(url string, weight int) connectplugin.Endpoint {
	return connectplugin.Endpoint{URL: url, Weight: weight, Metadata: map[string]string{"zone": "a"}}
}

func TestStaticDiscovery_CopiesInAndOut(t *testing.T) {
	t.Parallel()
	in := map[string][]connectplugin.Endpoint{"kv": {discoveryEndpoint("https://a", 1)}}
	d := connectplugin.NewStaticDiscovery(in)
	in["kv"][0].URL = "https://evil"
	in["kv"][0].Metadata["zone"] = "evil"
	added := discoveryEndpoint("https://b", 2)
	d.AddEndpoint("kv", added)
	added.Metadata["zone"] = "evil"
	events, err := d.Watch(t.Context(), "kv")
	if err != nil {
		t.Fatal(err)
	}
	event := <-events
	want := []connectplugin.Endpoint{discoveryEndpoint("https://a", 1), discoveryEndpoint("https://b", 2)}
	for range 2 {
		got, err := d.Discover(t.Context(), "kv")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, %v", got, err)
		}
		if !reflect.DeepEqual(event.Endpoints, want) {
			t.Fatalf("event %v", event)
		}
		got[0].URL, got[1].Metadata["zone"] = "https://evil", "evil"
		_ = append(got[:1], discoveryEndpoint("https://evil", 9))
		d.AddEndpoint("kv", discoveryEndpoint("https://b", 2)) // the same again
		event.Endpoints[0].Metadata["zone"] = "evil"
		event = <-events
	}
}

func TestStaticDiscovery_Discover(t *testing.T) {
	t.Parallel()
	var d connectplugin.StaticDiscovery
	if _, err := d.Discover(t.Context(), "kv"); !errors.Is(err, connectplugin.ErrNoEndpoints) {
		t.Errorf("unknown: got %v", err)
	}
	d.AddEndpoint("kv", discoveryEndpoint("https://a", 1))
	d.AddEndpoint("kv", discoveryEndpoint("https://a", 5)) // replaces
	if got, err := d.Discover(t.Context(), "kv"); err != nil || len(got) != 1 || got[0].Weight != 5 {
		t.Errorf("got %v, %v", got, err)
	}
	d.RemoveService("kv")
	d.RemoveService("kv")
	if _, err := d.Discover(t.Context(), "kv"); !errors.Is(err, connectplugin.ErrNoEndpoints) {
		t.Errorf("removed: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Discover(ctx, "kv"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: got %v", err)
	}
	if _, err := d.Watch(ctx, "kv"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: got %v", err)
	}
}

func TestStaticDiscovery_Watch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := connectplugin.NewStaticDiscovery(nil)
		ctx, cancel := context.WithCancel(t.Context())
		events, err := d.Watch(ctx, "kv")
		if err != nil {
			t.Fatal(err)
		}
		if cap(events) > 1 {
			t.Errorf("the channel holds %d events", cap(events))
		}
		next := func() connectplugin.DiscoveryEvent {
			t.Helper()
			synctest.Wait()
			select {
			case e, ok := <-events:
				if !ok || e.ServiceName != "kv" || e.Error != nil {
					t.Fatalf("got %+v, %v", e, ok)
				}
				return e
			default:
				t.Fatal("no event")
				return connectplugin.DiscoveryEvent{}
			}
		}
		if e := next(); len(e.Endpoints) != 0 {
			t.Errorf("first event %+v", e)
		}
		d.AddEndpoint("other", discoveryEndpoint("https://x", 1))
		synctest.Wait()
		if len(events) != 0 {
			t.Error("woken for another service")
		}
		for i := range 1000 { // nobody reads, nothing blocks
			d.AddEndpoint("kv", discoveryEndpoint(fmt.Sprint("https://", i), 1))
		}
		if e := next(); len(e.Endpoints) != 1000 {
			t.Errorf("the latest event has %d endpoints", len(e.Endpoints))
		}
		d.RemoveService("kv")
		if e := next(); len(e.Endpoints) != 0 {
			t.Errorf("after removal: %+v", e)
		}
		cancel()
		synctest.Wait()
		if _, ok := <-events; ok {
			t.Error("the channel is open")
		}
		d.AddEndpoint("kv", discoveryEndpoint("https://a", 1)) // nobody to tell, nothing to panic
	})
}

func TestStaticDiscovery_Concurrent(t *testing.T) {
	t.Parallel()
	d := connectplugin.NewStaticDiscovery(nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				events, err := d.Watch(ctx, "kv")
				if err != nil {
					t.Error(err)
				}
				d.AddEndpoint("kv", discoveryEndpoint(fmt.Sprint("https://", i, "-", j%3), j))
				<-events
				if j%50 == 0 {
					d.RemoveService("kv")
				}
				cancel()
				for range events {
				}
			}
		})
	}
	wg.Wait()
	got, err := d.Discover(t.Context(), "kv")
	if err != nil && !errors.Is(err, connectplugin.ErrNoEndpoints) || len(got) > 24 {
		t.Errorf("got %d endpoints, %v", len(got), err)
	}
}
