package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/bootstrap"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/privdir"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/verify"
)

// ProcessStrategy runs a plugin as a process of its own on this machine. The program is
// verified and exactly what was verified is executed; it gets a certificate and the way to
// the host over a pipe, a process group, and, unless [PluginSpec.Port] is set, a Unix socket
// in a directory that no other user may enter; it ends with the host. Its main function is the
// one that enrols by itself elsewhere: [ServePlugin]. It needs [ServeConfig.Authority].
//
// On Linux the bytes that were hashed are executed from a sealed memory file, so that
// os.Executable names no file there; elsewhere from a copy in a private directory, which a
// process of the same user could still change. Use one strategy for one launcher; it is safe
// for concurrent use.
type ProcessStrategy struct{ processes }

// NewProcessStrategy makes a process strategy. Register it with
// [PluginLauncher.RegisterStrategy].
func NewProcessStrategy() *ProcessStrategy {
	s := &ProcessStrategy{}
	s.starter.Guard = &s.guard
	return s
}

// Name returns "process".
func (s *ProcessStrategy) Name() string { return strategyProcess }

// Launch starts a process and returns when it is healthy. Nobody watches over it: that does
// a [PluginLauncher].
func (s *ProcessStrategy) Launch(ctx context.Context, spec PluginSpec) (LaunchResult, error) {
	host, err := s.platform()
	if err != nil {
		return LaunchResult{}, err
	}
	return launchAlone(ctx, s, host, spec)
}

// start launches one instance.
func (s *ProcessStrategy) start(ctx context.Context, p *Platform, spec PluginSpec, hold bool) (*instance, error) {
	l := &processLaunch{childProcess: childProcess{processes: &s.processes, platform: p, spec: spec}}
	i, err := l.run(ctx, hold)
	if err != nil {
		l.rollBack()
		return nil, fmt.Errorf("launch %q: %w", spec.Name, err)
	}
	return i, nil
}

// processLaunch is one launch of a process that enrols with the certificate of the launch.
type processLaunch struct {
	childProcess

	// Set on the way.
	tls  *LaunchTLS
	pipe *os.File // the host's end of the lifeline
	// socket is where it listens, empty where that is a port. What is removed with it is the
	// socket itself, or the directory that it has of its own.
	socket, litter string
}

// run takes the steps of a launch: verify, certify, start, await.
func (l *processLaunch) run(ctx context.Context, hold bool) (*instance, error) {
	hub := l.platform.hub()
	authority := hub.settings().authority
	switch {
	case authority == nil:
		return nil, fieldError("ServeConfig.Authority", "is required to launch processes: it gives each of them its certificate")
	case l.spec.GoPlugin != nil:
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].GoPlugin", l.spec.Name), "is for the strategy %q", strategyGoPlugin)
	}
	hostURL, err := l.platform.hostURL(l.spec.HostURL)
	if err != nil {
		return nil, err
	}
	binary, giveBack, err := l.processes.binary(l.platform, l.spec)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	if l.tls, err = authority.LaunchTLS(LaunchTLSConfig{ID: strings.ToLower(rand.Text())}); err != nil {
		return nil, err
	}
	if err := l.open(hold); err != nil {
		return nil, err
	}
	if err := l.startProcess(ctx, binary, hostURL); err != nil {
		return nil, err
	}
	i := l.instance()
	if err := l.platform.awaitReady(ctx, l.launch, l.proc.Done()); err != nil {
		return nil, l.describe(ctx, err)
	}
	l.platform.log().Info("plugin launched", keyPlugin, l.spec.Name, keyPid, l.proc.Pid(), keyRuntimeID, i.runtimeID())
	return i, nil
}

// socketName is the name of a plugin's socket in a directory of its own.
const socketName = "plugin"

// open enters the launch into the hub's book, with the place where the plugin will be.
func (l *processLaunch) open(hold bool) error {
	l.launch = launches.New(l.tls.Identity(), l.spec.Name, l.spec.Provides)
	if hold {
		l.launch.Hold()
	}
	if l.spec.Port != 0 {
		l.launch.At = l.listenAddr()
	} else if err := l.nameSocket(); err != nil && !errors.Is(err, privdir.ErrUnsupported) {
		return err
	}
	if l.socket != "" {
		l.launch.At, l.launch.OnEnrolled = launches.AtSocket, l.settle
	}
	l.platform.hub().launches.Open(l.launch)
	return nil
}

// nameSocket says where the plugin listens: where no other user comes, and the plugin does.
func (l *processLaunch) nameSocket() (err error) {
	if l.spec.User == "" {
		l.socket, err = l.processes.sockets.File()
		l.litter = l.socket
		return err
	}
	if l.litter, err = l.socketDir(); err == nil {
		l.socket = filepath.Join(l.litter, socketName)
	}
	return err
}

// listenAddr is where the plugin listens that has no socket.
func (l *processLaunch) listenAddr() string { return "127.0.0.1:" + strconv.Itoa(l.spec.Port) }

// settle says that whoever enrolled with the certificate of the launch is at its socket.
func (l *processLaunch) settle(id *tokenstore.Identity) {
	err := l.platform.router.settle(id.RuntimeID(), place{own: &ownPlace{
		name: bootstrap.UnixPrefix + l.socket + "#",
		open: func(d *pluginDialer) (*proxy.Provider, error) { return d.socketPool(l.platform.hub(), id, l.socket) },
	}})
	if err != nil {
		l.launch.Refuse(err.Error())
	}
}

// socketPool makes the connection pool of a plugin at a Unix socket.
func (d *pluginDialer) socketPool(h *hub, id *tokenstore.Identity, path string) (*proxy.Provider, error) {
	if d.tls == nil {
		return nil, errors.New("a host in plaintext calls no plugin that it launched")
	}
	cfg := d.config(h, id, onlyPlace)
	cfg.Dial, cfg.Name = dialSocket(path), bootstrap.UnixPrefix+path
	cfg.TLS = d.tlsFor(h, id)
	return proxy.New(cfg)
}

// onlyPlace stands for the endpoint of a plugin whose address is none of the network's.
var onlyPlace, _ = proxy.ParseEndpoint("https://127.0.0.1", false)

func dialSocket(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}

// rollBack leaves nothing of a launch that failed.
func (l *processLaunch) rollBack() {
	l.killAndWait()
	if l.exited != nil {
		<-l.exited
		return
	}
	l.cleanUp()
}

// cleanUp ends what the host knows of a launch whose process has ended.
func (l *processLaunch) cleanUp() {
	if l.launch != nil {
		l.platform.hub().launches.Close(l.launch)
	}
	l.endIdentity()
	if l.tls != nil {
		l.tls.Close()
	}
	if l.pipe != nil {
		_ = l.pipe.Close()
	}
	l.vacate()
}

// vacate removes the plugin's socket, to which nobody connects any more.
func (l *processLaunch) vacate() {
	if l.litter != "" {
		_ = os.RemoveAll(l.litter)
	}
}

// startProcess starts the process and tells it over the lifeline who it is.
func (l *processLaunch) startProcess(ctx context.Context, binary *verify.Binary, hostURL string) error {
	cfg, err := l.config(binary, l.environment(hostURL), l.platform.logOutput(l.spec.Name))
	if err != nil {
		return err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("lifeline: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	l.pipe = ours
	cfg.Files = []*os.File{theirs}
	if l.proc, err = l.begin(cfg); err != nil {
		return err
	}
	m, err := l.tls.message()
	if err != nil {
		return err
	}
	m.HostURL, m.HostIdentity, m.SelfID = hostURL, l.tls.authority.HostIdentity(), l.spec.Name
	m.Listen, m.Metadata = l.listenAddr(), l.spec.Metadata
	if l.socket != "" {
		m.Listen = bootstrap.UnixPrefix + l.socket
	}
	m.GraceMillis = l.spec.StopGrace.Milliseconds()
	return l.tls.tell(ctx, l.pipe, m)
}

// environment is all that the process inherits: where its lifeline is, and what programs of
// the library being replaced look for. The spec's own follow, and win.
func (l *processLaunch) environment(hostURL string) []string {
	const lifeline = 3 // the first descriptor after stdin, stdout and stderr
	env := []string{bootstrap.EnvDescriptor + "=" + strconv.Itoa(lifeline), "HOST_URL=" + hostURL}
	if l.spec.Port != 0 {
		env = append(env, "PORT="+strconv.Itoa(l.spec.Port))
	}
	if runtime.GOOS == "windows" {
		env = append(env, "SYSTEMROOT="+os.Getenv("SYSTEMROOT")) // nothing starts without
	}
	return env
}

// instance returns the process as the launcher sees it, and watches for its end.
func (l *processLaunch) instance() *instance {
	exited := make(chan struct{})
	l.exited = exited
	renewing, stopRenewing := context.WithCancel(context.Background())
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		l.tls.renewOver(renewing, l.pipe)
	}()
	end := sync.OnceFunc(func() {
		stopRenewing()
		<-renewed
		l.cleanUp()
	})
	go func() {
		<-l.proc.Done()
		end()
		close(exited)
	}()
	i := &instance{
		pid: l.proc.Pid(), exited: exited, exit: l.exit, begun: time.Now(),
		runtimeID: l.runtimeID,
		stop: func(ctx context.Context, reason string) error {
			l.noteAsked()
			l.stop(ctx, func(ctx context.Context) error { return l.ask(ctx, reason, end) })
			<-exited
			return nil
		},
		release: func(old string) error { return l.platform.release(l.launch, old) },
	}
	i.result = l.platform.result(l.runtimeID, func() { _ = i.stop(context.Background(), "cleanup") })
	return i
}

// ask takes the plugin out of service and asks it to end. What the host knows of it ends when it
// has left, while the system still takes its process apart, which is most of a stop.
func (l *processLaunch) ask(ctx context.Context, reason string, end func()) error {
	last := l.withdraw(ctx)
	if err := l.platform.askToStop(ctx, l.runtimeID(), l.spec.StopGrace, reason, last); err != nil {
		return err
	}
	l.vacate()
	if bootstrap.Released(ctx, l.pipe) {
		end()
	}
	return nil
}

// withdraw takes the plugin out of service, and reports whether no call to it is in flight and none
// comes any more. Otherwise it tells the plugin that it was taken out. One that does not hear it only
// takes longer to end.
func (l *processLaunch) withdraw(ctx context.Context) (quiet bool) {
	l.platform.registry.catalog.RemoveWhere(ofRuntime(l.runtimeID()))
	if l.platform.router.seal(l.runtimeID()) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, withdrawWait)
	defer cancel()
	_ = l.tls.tell(ctx, l.pipe, &bootstrap.Message{Withdrawn: true})
	return false
}

// message returns the first message of a launch, with its certificate.
func (l *LaunchTLS) message() (*bootstrap.Message, error) {
	m, err := l.renewal()
	if err != nil {
		return nil, err
	}
	if m.Key, err = certs.EncodeKey(l.key); err != nil {
		return nil, fmt.Errorf("key of %s: %w", l.id, err)
	}
	m.CA = l.authority.ca.CertificatePEM()
	return m, nil
}

// renewal returns the certificate that is current now.
func (l *LaunchTLS) renewal() (*bootstrap.Message, error) {
	cert, err := l.source.Certificate(time.Now())
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	return &bootstrap.Message{Certificate: certs.EncodeCertificates(cert.Certificate...)}, nil
}

// How long a message to a plugin may wait for room in the pipe: one that does not read what the
// host says has to be known before its certificate ends, and holds up no end.
const (
	renewWait    = 10 * time.Second
	withdrawWait = 100 * time.Millisecond
)

// tell writes one message to the plugin, which may not read it, until ctx ends.
func (l *LaunchTLS) tell(ctx context.Context, pipe *os.File, m *bootstrap.Message) error {
	_ = pipe.SetWriteDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = pipe.SetWriteDeadline(time.Unix(1, 0)) })()
	if err := bootstrap.Write(io.Writer(pipe), m); err != nil {
		return fmt.Errorf("certificate of %s: %w", l.id, err)
	}
	return nil
}

// renewOver sends the plugin a new certificate whenever one is due, until ctx ends.
func (l *LaunchTLS) renewOver(ctx context.Context, pipe *os.File) {
	sent := l.source.Leaf()
	for wait := certs.Wait(sent, time.Now()); backoff.Wait(ctx, wait); {
		if wait = certs.Wait(sent, time.Now()); wait > 0 {
			continue
		}
		err := l.renewNow(ctx, pipe)
		wait = l.authority.retry()
		switch {
		case err != nil:
			l.authority.log().Warn("the certificate of a launch is not renewed", keySubject, l.Identity(), keyError, err)
		default:
			sent = l.source.Leaf()
			if wait = certs.Wait(sent, time.Now()); wait <= 0 {
				return // it ends with the authority, no later one can follow
			}
		}
	}
}

func (l *LaunchTLS) renewNow(ctx context.Context, pipe *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	m, err := l.renewal()
	if err != nil {
		return err
	}
	return l.tell(ctx, pipe, m)
}
