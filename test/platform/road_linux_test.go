package platform_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// detour puts a socket in the place of the one at which this process listens, which gets another name beside it.
func detour(through string) error {
	own := map[string]bool{}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	for _, name := range open {
		to, _ := os.Readlink(name)
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	const inode, path = 6, 7 // the columns
	for line := range strings.Lines(string(sockets)) {
		columns := strings.Fields(line)
		if len(columns) <= path || !own[columns[inode]] {
			continue
		}
		if err := os.Rename(columns[path], through+".own"); err != nil {
			return err
		}
		return os.Symlink(through, columns[path])
	}
	return fmt.Errorf("this process listens nowhere: %s", sockets)
}

// road is what the connections of a host to a plugin go over. What the plugin sends is kept, as a network does, from when it is busy until
// it is open, and so is its end.
type road struct {
	listener net.Listener
	open     chan struct{}
	ways     sync.WaitGroup

	mu   sync.Mutex
	busy bool
}

func newRoad(t *testing.T) *road {
	t.Helper()
	dir, err := os.MkdirTemp("", "road") //nolint:usetesting // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	r := &road{listener: listener, open: make(chan struct{})}
	r.ways.Go(r.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		r.ways.Wait()
		_ = os.RemoveAll(dir)
	})
	return r
}

func (r *road) path() string { return r.listener.Addr().String() }

func (r *road) serve() {
	for {
		host, err := r.listener.Accept()
		if err != nil {
			return
		}
		plugin, err := net.Dial("unix", r.path()+".own")
		if err != nil {
			_ = host.Close()
			continue
		}
		r.ways.Go(func() {
			_, _ = io.Copy(plugin, host)
			_ = plugin.Close()
		})
		r.ways.Go(func() { r.back(host, plugin) })
	}
}

// back passes on what the plugin sends.
func (r *road) back(host, plugin net.Conn) {
	var kept bytes.Buffer
	buffer := make([]byte, 32<<10)
	for {
		n, err := plugin.Read(buffer)
		r.mu.Lock()
		to := io.Writer(host)
		if r.busy {
			to = &kept
		}
		r.mu.Unlock()
		_, _ = to.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	if kept.Len() > 0 {
		<-r.open
	}
	_, _ = host.Write(kept.Bytes())
	_ = host.Close()
}

// What a plugin answered before its process ended, and what is still on the way to the host, reaches whoever called.
func TestHostPassesOnTheLastWordsOfAProcess(t *testing.T) {
	t.Parallel()
	h, exited, road := start(t, "echo"), make(chan connectplugin.PluginExit, 1), newRoad(t)
	opened := sync.OnceFunc(func() { close(road.open) })
	defer opened()
	last := spec("road=" + road.path())
	last.Restart.Never, last.OnExit = true, func(e connectplugin.PluginExit) { exited <- e }
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": last})
	url, client, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+echoPath+"Last", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	road.mu.Lock()
	road.busy = true
	road.mu.Unlock()
	answered := make(chan error, 1)
	go func() {
		resp, err := client.Do(r)
		if err != nil {
			answered <- err
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && len(body) != lastWords {
			err = fmt.Errorf("of %d bytes %d arrived", lastWords, len(body))
		}
		answered <- err
	}()
	if e := hosttest.Arrival(t, exited); e.Requested || e.ExitCode != 0 {
		t.Fatalf("it ended otherwise: %+v", e)
	}
	opened()
	if err := hosttest.Arrival(t, answered); err != nil {
		t.Error(err)
	}
}
