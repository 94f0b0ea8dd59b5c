package tools_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

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
		if events, err = d.Watch(t.Context(), "kv"); err != nil {
			t.Fatal(err)
		}
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

// A table tells what it has and ends: whoever ranges over the channel goes on.
func TestStaticDiscovery_Watch(t *testing.T) {
	t.Parallel()
	d := connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{"kv": {discoveryEndpoint("https://a", 1)}})
	all := func(name string) []connectplugin.DiscoveryEvent {
		t.Helper()
		events, err := d.Watch(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		var got []connectplugin.DiscoveryEvent
		for e := range events {
			got = append(got, e)
		}
		return got
	}
	known := all("kv")
	if len(known) != 1 || known[0].ServiceName != "kv" || known[0].Error != nil || len(known[0].Endpoints) != 1 {
		t.Fatalf("got %+v", known)
	}
	known[0].Endpoints[0].URL = "https://changed" // the reader's own
	d.AddEndpoint("kv", discoveryEndpoint("https://b", 1))
	if again := all("kv"); len(again) != 1 || len(again[0].Endpoints) != 2 || again[0].Endpoints[0].URL != "https://a" {
		t.Errorf("after an endpoint came: %+v", again)
	}
	d.RemoveService("kv")
	for _, name := range []string{"kv", "never"} {
		if e := all(name); len(e) != 1 || !errors.Is(e[0].Error, connectplugin.ErrNoEndpoints) || len(e[0].Endpoints) != 0 || e[0].ServiceName != name {
			t.Errorf("%s: got %+v", name, e)
		}
	}
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
