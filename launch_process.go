package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/masegraye/connect-plugin-go/internal/bootstrap"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/procgroup"
	"github.com/masegraye/connect-plugin-go/internal/verify"
)

// ProcessStrategy runs a plugin as a process of its own on this machine. The program is
// verified and exactly what was verified is executed; it gets a certificate and the way to
// the host over a pipe, and a process group; it ends with the host. Its main function is the
// one that enrols by itself elsewhere: [ServePlugin]. It needs [ServeConfig.Authority].
//
// On Linux the bytes that were hashed are executed from a sealed memory file, so that
// os.Executable names no file there; elsewhere from a copy in a private directory, which a
// process of the same user could still change. Use one strategy for one launcher; it is safe
// for concurrent use.
type ProcessStrategy struct {
	guard   procgroup.Guard
	starter procgroup.Starter

	mu       sync.Mutex
	host     *Platform
	binaries map[string]*heldBinary // by what was asked for
}

// heldBinary is a verified program that is kept for the next start.
type heldBinary struct {
	once   sync.Once
	binary *verify.Binary
	err    error
}

// NewProcessStrategy makes a process strategy. Register it with
// [PluginLauncher.RegisterStrategy].
func NewProcessStrategy() *ProcessStrategy {
	s := &ProcessStrategy{binaries: map[string]*heldBinary{}}
	s.starter.Guard = &s.guard
	return s
}

// Name returns "process".
func (s *ProcessStrategy) Name() string { return strategyProcess }

var errNoLauncher = errors.New("the strategy belongs to no launcher: pass it to PluginLauncher.RegisterStrategy")

// Launch starts a process and returns when it is healthy. Nobody watches over it: that does
// a [PluginLauncher].
func (s *ProcessStrategy) Launch(ctx context.Context, spec PluginSpec) (LaunchResult, error) {
	s.mu.Lock()
	host := s.host
	s.mu.Unlock()
	if host == nil {
		return LaunchResult{}, errNoLauncher
	}
	return launchAlone(ctx, s, host, spec)
}

// launchAlone launches an instance that only its Cleanup ends.
func launchAlone(ctx context.Context, s boundStrategy, host *Platform, spec PluginSpec) (LaunchResult, error) {
	spec = spec.withDefaults(spec.Name)
	if err := spec.validate(); err != nil {
		return LaunchResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, spec.ReadyTimeout)
	defer cancel()
	i, err := s.start(ctx, host, spec, false)
	if err != nil {
		return LaunchResult{}, err
	}
	return i.result, nil
}

// bind ties the strategy to the platform whose plugins it starts.
func (s *ProcessStrategy) bind(p *Platform) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host = p
}

// close gives back what is kept between launches; no process is left then.
func (s *ProcessStrategy) close() {
	s.guard.Close()
	s.mu.Lock()
	held := s.binaries
	s.binaries = map[string]*heldBinary{}
	s.mu.Unlock()
	for _, h := range held {
		if h.binary != nil {
			h.binary.Close()
		}
	}
}

// binary returns the verified program of a spec. It is read once: what the same path holds
// later is of no interest to a spec that was accepted.
func (s *ProcessStrategy) binary(p *Platform, spec PluginSpec) (*verify.Binary, error) {
	path, err := filepath.Abs(spec.BinaryPath)
	if err != nil || spec.BinaryPath == "" {
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].BinaryPath", spec.Name), "%q is no path of a program", spec.BinaryPath)
	}
	key := strings.Join([]string{path, spec.Checksum, string(spec.SignatureKey), string(spec.Signature)}, "\x00")
	s.mu.Lock()
	held := s.binaries[key]
	if held == nil {
		held = &heldBinary{}
		s.binaries[key] = held
	}
	s.mu.Unlock()
	held.once.Do(func() { held.binary, held.err = s.verify(p, path, spec) })
	if held.err == nil {
		return held.binary, nil
	}
	s.mu.Lock()
	if s.binaries[key] == held {
		delete(s.binaries, key) // looked at again next time
	}
	s.mu.Unlock()
	return nil, fmt.Errorf("%w: %w", ErrBinaryRefused, held.err)
}

func (s *ProcessStrategy) verify(p *Platform, path string, spec PluginSpec) (*verify.Binary, error) {
	want := verify.Want{Key: spec.SignatureKey, Signature: spec.Signature}
	if spec.Checksum != "" {
		digest, err := verify.ParseDigest(spec.Checksum)
		if err != nil {
			return nil, err
		}
		want.Digest = &digest
	}
	b, err := verify.Open(path, want)
	if err == nil && spec.Checksum == "" && len(spec.SignatureKey) == 0 {
		p.log().Warn("the program of a plugin is started unverified: write its Checksum, if this is it",
			keyPlugin, spec.Name, keyPath, path, keyChecksum, b.Digest.String())
	}
	return b, err
}

// start launches one instance.
func (s *ProcessStrategy) start(ctx context.Context, p *Platform, spec PluginSpec, hold bool) (*instance, error) {
	l := &processLaunch{strategy: s, platform: p, spec: spec}
	i, err := l.run(ctx, hold)
	if err != nil {
		l.rollBack()
		return nil, fmt.Errorf("launch %q: %w", spec.Name, err)
	}
	return i, nil
}

// processLaunch is one launch of a process.
type processLaunch struct {
	// Fixed at creation.
	strategy *ProcessStrategy
	platform *Platform
	spec     PluginSpec

	// Set on the way.
	tls      *LaunchTLS
	launch   *launches.Launch
	pipe     *os.File // the host's end of the lifeline
	proc     *procgroup.Process
	exited   chan struct{} // closed when nothing is left; made with the instance
	stopping sync.Once
	mu       sync.Mutex
	asked    bool // the end is the launcher's doing
}

// run takes the steps of a launch: verify, certify, start, await.
func (l *processLaunch) run(ctx context.Context, hold bool) (*instance, error) {
	hub := l.platform.hub()
	authority := hub.settings().authority
	if authority == nil {
		return nil, fieldError("ServeConfig.Authority", "is required to launch processes: it gives each of them its certificate")
	}
	hostURL, err := l.platform.hostURL(l.spec.HostURL)
	if err != nil {
		return nil, err
	}
	binary, err := l.strategy.binary(l.platform, l.spec)
	if err != nil {
		return nil, err
	}
	if l.tls, err = authority.LaunchTLS(LaunchTLSConfig{ID: strings.ToLower(rand.Text())}); err != nil {
		return nil, err
	}
	l.launch = launches.New(l.tls.Identity(), l.spec.Name, l.spec.Provides)
	if hold {
		l.launch.Hold()
	}
	hub.launches.Open(l.launch)
	if err := l.startProcess(binary, hostURL); err != nil {
		return nil, err
	}
	i := l.instance()
	if err := l.platform.awaitReady(ctx, l.launch, l.proc.Done()); err != nil {
		return nil, l.describe(ctx, err)
	}
	l.platform.log().Info("plugin launched", keyPlugin, l.spec.Name, keyPid, l.proc.Pid(), keyRuntimeID, i.runtimeID())
	return i, nil
}

// describe adds to the error of a launch what the host and the plugin said.
func (l *processLaunch) describe(ctx context.Context, err error) error {
	select {
	case <-l.proc.Done():
		err = fmt.Errorf("it ended before it was healthy: %s", l.proc.Exit())
	default:
		if ctx.Err() != nil {
			err = fmt.Errorf("it was not healthy in time: %w", err)
		}
	}
	if reason := l.launch.Refused(); reason != "" {
		err = fmt.Errorf("%w; the host refused it: %s", err, reason)
	}
	if tail := l.proc.Tail(); len(tail) > 0 {
		err = fmt.Errorf("%w; it said: %s", err, printableLines(tail))
	}
	return err
}

// rollBack leaves nothing of a launch that failed.
func (l *processLaunch) rollBack() {
	if l.proc != nil {
		l.noteAsked()
		_ = l.proc.Kill()
		<-l.proc.Done()
	}
	if l.exited != nil {
		<-l.exited
		return
	}
	l.cleanUp()
}

// cleanUp ends what the host knows of a launch whose process has ended.
func (l *processLaunch) cleanUp() {
	hub := l.platform.hub()
	if l.launch != nil {
		hub.launches.Close(l.launch)
		if id := l.launch.Current(); id != nil {
			hub.store.Revoke(id.RuntimeID(), reasonExited)
		}
	}
	if l.tls != nil {
		l.tls.Close()
	}
	if l.pipe != nil {
		_ = l.pipe.Close()
	}
}

// startProcess starts the process and tells it over the lifeline who it is.
func (l *processLaunch) startProcess(binary *verify.Binary, hostURL string) error {
	cfg, err := l.config(binary, hostURL)
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
	if l.proc, err = l.strategy.starter.Start(cfg); err != nil {
		return err
	}
	m, err := l.tls.message()
	if err != nil {
		return err
	}
	m.HostURL, m.HostIdentity, m.SelfID = hostURL, l.tls.authority.HostIdentity(), l.spec.Name
	m.Listen, m.Metadata = "127.0.0.1:"+strconv.Itoa(l.spec.Port), l.spec.Metadata
	m.GraceMillis = l.spec.StopGrace.Milliseconds()
	return l.tls.tell(l.pipe, m)
}

// config says how the process is started.
func (l *processLaunch) config(binary *verify.Binary, hostURL string) (*procgroup.Config, error) {
	spec := l.spec
	path, err := filepath.Abs(spec.BinaryPath)
	if err != nil {
		return nil, fmt.Errorf("BinaryPath: %w", err)
	}
	cfg := &procgroup.Config{
		Path: path, Executable: binary.Executable(), Args: spec.Args, Dir: spec.Dir,
		Env:    l.environment(hostURL),
		Output: l.platform.logOutput(spec.Name),
	}
	if cfg.Executable == nil {
		cfg.Path = binary.Path()
	}
	if cfg.Credential, err = credentialOf(spec.User, spec.Group); err != nil {
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].User", spec.Name), "%v", err)
	}
	for name, value := range spec.Rlimits {
		number, _ := procgroup.Resource(string(name)) // validated
		cfg.Rlimits = append(cfg.Rlimits, procgroup.Rlimit{Resource: number, Soft: value, Hard: value})
	}
	return cfg, nil
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
	return append(env, l.spec.Env...)
}
