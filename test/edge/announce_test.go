package edge_test

import (
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What one plugin's registrations make watchers receive is bounded, and what those of
// others do is theirs.
func TestAudit_ATK23_MetadataTimesWatchersIsBounded(t *testing.T) {
	t.Parallel()
	const metadata = 3000
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"loud": {{"loud"}, nil}, "quiet": {{"quiet"}, nil}, "watcher": {nil, {"loud", "quiet"}}})
		c.Limits.AnnouncedBytesPerSecond, c.Limits.AnnouncedBytesBurst = 1, metadata+100
	})
	loud, quiet := host.Enrol(t, "loud", hosttest.Providing("loud")), host.Enrol(t, "quiet", hosttest.Providing("quiet"))
	watcher := host.Enrol(t, "watcher", hosttest.Requiring("loud", "quiet"))
	open := func(serviceType string) *hosttest.Watching {
		w := hosttest.Watch(t, watcher, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: serviceType})
		w.Next(t)
		return w
	}
	watches := []*hosttest.Watching{open("loud"), open("loud"), open("loud")}
	other := open("quiet")
	register := func(c *connectplugin.Client, serviceType string) {
		t.Helper()
		err := hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
			ServiceType: serviceType, Version: "1.0.0", EndpointPath: "/a/", Metadata: map[string]string{"k": strings.Repeat("x", metadata)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	told := func() (n int) {
		for _, w := range watches {
			n += len(w.Events)
		}
		return n
	}
	register(loud, "loud")
	hosttest.Eventually(t, "one is told", func() bool { return told() > 0 })
	register(quiet, "quiet")
	if e := other.Until(t, hosttest.IsState(hosttest.Available)); len(e.GetEndpoint().GetMetadata()["k"]) != metadata {
		t.Errorf("an honest plugin's watcher gets %v", e)
	}
	if n := told(); n != 1 {
		t.Errorf("%d of 3 watchers are told at once, want 1", n)
	}
	hosttest.Eventually(t, "the audit has whose watchers wait", func() bool {
		events, _ := limitedOf(host, "(Limits.AnnouncedBytesPerSecond")
		return len(events) == 1 && events[0].SelfID == "loud" && events[0].RuntimeID == loud.RuntimeID()
	})
}
