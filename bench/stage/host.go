package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Words that a host obeys.
const (
	WordRest    = "rest"    // collect garbage, answer with a Rest
	WordProfile = "profile" // begin a profile of the processor, and end it when told again
)

// Rest is what a host has after a collection.
type Rest struct {
	Goroutines int
	Calls      int    // in flight, open watches among them
	Heap       uint64 // bytes of live objects
	Stacks     uint64
	System     uint64 // obtained from the system and not given back
}

// Authority loads what the first process of a measurement made.
func Authority(dir string) (*connectplugin.Authority, error) {
	a, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a, nil
}

// ServeHost serves a host on loopback, says its address, and obeys until its input ends.
// A file for profiles is written where one is named.
func ServeHost(ctx context.Context, cfg *connectplugin.ServeConfig, profile string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	cfg.HealthAddr, cfg.MetricsAddr = ProbesOf(l.Addr().String()), ScrapesOf(l.Addr().String())
	cfg.Metrics = http.HandlerFunc(scraped)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: silent}
	host, err := connectplugin.NewHost(cfg)
	if err != nil {
		return errors.Join(fmt.Errorf("host: %w", err), l.Close())
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx, l) }()
	if err := Tell(l.Addr().String()); err != nil {
		return err
	}
	profiling := profiler{path: profile}
	err = Obey(map[string]func() (any, error){
		WordRest:    func() (any, error) { return rest(host), nil },
		WordProfile: profiling.toggle,
	})
	end()
	if ended := <-served; err == nil {
		err = ended
	}
	return err
}

// ProbesOf is where the host at an address answers probes, and ScrapesOf where it answers scrapes.
func ProbesOf(addr string) string { return elsewhere("127.0.0.3", addr) }

// ScrapesOf is the same for scrapes.
func ScrapesOf(addr string) string { return elsewhere("127.0.0.4", addr) }

func elsewhere(ip, addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(ip, port)
}

// scrapeBytes is how long the answer to a scrape is, about what a host with a hundred plugins has.
const scrapeBytes = 64 << 10

func scraped(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write(bytes.Repeat([]byte("a_metric 1\n"), scrapeBytes/len("a_metric 1\n")))
}

// silent is how a host reaches servers of names: they never answer, and are nowhere else.
func silent(context.Context, string, string) (net.Conn, error) {
	near, _ := net.Pipe()
	return near, nil
}

func rest(host *connectplugin.Host) Rest {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what a finalizer held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Rest{
		Goroutines: runtime.NumGoroutine(), Calls: host.Usage().Calls,
		Heap: m.HeapAlloc, Stacks: m.StackInuse, System: m.Sys - m.HeapReleased,
	}
}

// profiler writes a profile of the processor, and one of the heap at its end.
type profiler struct {
	path string
	file *os.File
}

func (p *profiler) toggle() (any, error) {
	if p.path == "" {
		return false, nil
	}
	if p.file != nil {
		pprof.StopCPUProfile()
		err := p.file.Close()
		p.file = nil
		if err == nil {
			err = p.heap()
		}
		return false, err
	}
	var err error
	if p.file, err = os.Create(p.path + ".cpu"); err != nil {
		return false, fmt.Errorf("profile: %w", err)
	}
	return true, pprof.StartCPUProfile(p.file) //nolint:wrapcheck // says what it was
}

func (p *profiler) heap() error {
	f, err := os.Create(p.path + ".heap")
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	runtime.GC()
	if err := pprof.WriteHeapProfile(f); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return f.Close() //nolint:wrapcheck // says what it was
}
