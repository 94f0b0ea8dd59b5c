package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/privdir"
	"github.com/masegraye/connect-plugin-go/internal/procgroup"
	"github.com/masegraye/connect-plugin-go/internal/verify"
)

// Attribute keys of the log.
const (
	keyPlugin   = "plugin"
	keyPid      = "pid"
	keyPath     = "path"
	keyChecksum = "checksum"
	keyStream   = "stream"
	keyLine     = "line"
	keyDropped  = "dropped"
)

// processes is what a strategy that starts processes keeps between launches.
type processes struct {
	guard   procgroup.Guard
	starter procgroup.Starter
	sockets privdir.Root

	mu       sync.Mutex
	owner    *PluginLauncher        // nil for none
	binaries map[string]*heldBinary // by what was asked for
}

// heldBinary is a verified program that is kept for the next start.
type heldBinary struct {
	once   sync.Once
	binary *verify.Binary
	err    error

	// Guarded by mu of its strategy.
	launches int  // that are under way with it
	stays    bool // until the end of the strategy
}

// bind ties the strategy to the launcher that it is given to first, whose end is its own, and reports whether that is this one.
func (s *processes) bind(l *PluginLauncher) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner == nil {
		s.owner = l
	}
	return s.owner == l
}

var errNoLauncher = errors.New("the strategy belongs to no launcher: pass it to PluginLauncher.RegisterStrategy")

// platform returns the platform that the strategy is tied to.
func (s *processes) platform() (*Platform, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner == nil {
		return nil, errNoLauncher
	}
	return s.owner.platform, nil
}

// close gives back what is kept between launches; no process is left then.
func (s *processes) close() {
	s.guard.Close()
	s.sockets.Close()
	s.mu.Lock()
	held := s.binaries
	s.binaries = nil
	s.mu.Unlock()
	for _, h := range held {
		if h.binary != nil {
			h.binary.Close()
		}
	}
}

// binary returns the verified program of a spec, to be given back when it was started. It is read once: what the same path holds
// later is of no interest to a spec that was accepted.
func (s *processes) binary(p *Platform, spec PluginSpec) (b *verify.Binary, giveBack func(), err error) {
	path, err := filepath.Abs(spec.BinaryPath)
	if err != nil || spec.BinaryPath == "" {
		return nil, nil, fieldError(fmt.Sprintf("PluginSpec[%q].BinaryPath", spec.Name), "%q is no path of a program", spec.BinaryPath)
	}
	key := spec.program()
	s.mu.Lock()
	if s.binaries == nil {
		s.binaries = map[string]*heldBinary{}
	}
	held := s.binaries[key]
	if held == nil {
		held = &heldBinary{stays: spec.Checksum == "" && len(spec.SignatureKey) == 0} // what is found first runs from then on
		s.binaries[key] = held
	}
	held.launches++
	s.mu.Unlock()
	held.once.Do(func() { held.binary, held.err = verifyProgram(p, path, spec) })
	if held.err == nil {
		held.tell(p, path, spec)
		return held.binary, func() { s.giveBack(key, held) }, nil
	}
	s.mu.Lock()
	if s.binaries[key] == held {
		delete(s.binaries, key) // looked at again next time
	}
	s.mu.Unlock()
	return nil, nil, fmt.Errorf("%w: %w", ErrBinaryRefused, held.err)
}

// tell warns where the file of a program holds another one by now, which is not run: of a spec that says nothing of its
// bytes an operator may expect that it is.
func (h *heldBinary) tell(p *Platform, path string, spec PluginSpec) {
	if spec.Checksum != "" || len(spec.SignatureKey) > 0 || !h.binary.Replaced() {
		return
	}
	p.log().Warn("the file of a plugin's program has changed, and what it held at the first launch runs on: "+
		"write the Checksum of the new one, and call Configure and Replace", keyPlugin, spec.Name, keyPath, path,
		keyChecksum, h.binary.Digest.String())
}

// program is what tells the program of a spec from others.
func (s PluginSpec) program() string {
	path, err := filepath.Abs(s.BinaryPath)
	if err != nil {
		path = s.BinaryPath
	}
	return strings.Join([]string{path, s.Checksum, string(s.SignatureKey), string(s.Signature)}, "\x00")
}

// giveBack takes a program back that a launch is done with, and closes those that nobody starts any more: each of them is as much
// memory as its file is long, and a version that was replaced has had its time.
func (s *processes) giveBack(key string, held *heldBinary) {
	s.mu.Lock()
	owner := s.owner
	s.mu.Unlock()
	wanted := owner.programs()
	s.mu.Lock()
	defer s.mu.Unlock()
	held.launches--
	if !wanted[key] { // launched without the launcher, which does not know for how long
		held.stays = true
	}
	for other, h := range s.binaries {
		if !wanted[other] && !h.stays && h.launches == 0 {
			delete(s.binaries, other)
			h.binary.Close()
		}
	}
}

func verifyProgram(p *Platform, path string, spec PluginSpec) (*verify.Binary, error) {
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

// launchAlone launches an instance that only its Cleanup ends.
func launchAlone(ctx context.Context, s boundStrategy, host *Platform, spec PluginSpec) (LaunchResult, error) {
	spec = spec.withDefaults(spec.Name)
	if err := spec.validate(); err != nil {
		return LaunchResult{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, spec.ReadyTimeout, errReadyTime)
	defer cancel()
	if err := host.awaitRequired(ctx, spec); err != nil {
		return LaunchResult{}, launchFault(spec, err)
	}
	i, err := s.start(ctx, host, spec, false)
	if err == nil {
		i, err = i.inTime(ctx, spec)
	}
	if err != nil {
		return LaunchResult{}, err
	}
	return i.result, nil
}

// inTime ends an instance that came when the time of its launch was over already.
func (i *instance) inTime(ctx context.Context, spec PluginSpec) (*instance, error) {
	if err := stillWanted(ctx); err != nil {
		return nil, launchFault(spec, errors.Join(err, i.stop(ctx, "it came too late")))
	}
	return i, nil
}

// lastCall ends what runs in the host's own process, with code of the user's, once.
type lastCall struct {
	// Fixed at creation.
	name  string // of the plugin
	what  string // whose code it is
	call  func() error
	grace time.Duration // how long it may take
	log   func() *slog.Logger
	over  chan struct{} // closed when it is over, or was given up

	once sync.Once
	err  error // set before over closes
}

// lastMoment is how long code of the user's may still take after the context has ended in which it was to end.
const lastMoment = time.Second

// begin begins to end it, unless that has begun.
func (e *lastCall) begin() {
	e.once.Do(func() { go e.run() })
}

func (e *lastCall) run() {
	defer close(e.over)
	ctx, cancel := context.WithTimeout(context.Background(), e.grace)
	defer cancel()
	if e.err = callGuest(ctx, e.what, e.call); e.err != nil {
		e.log().With(keyPlugin, e.name, keySubject, e.what).Warn("the last call of the user's code for a plugin failed", logged(e.err)...)
	}
}

// wait waits for the end, a moment longer than ctx lasts. The error says what of the user's failed or still runs.
func (e *lastCall) wait(ctx context.Context) error {
	e.begin()
	select {
	case <-e.over:
	case <-ctx.Done():
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(lastMoment, e.grace))
		defer cancel()
		select {
		case <-e.over:
		case <-last.Done():
			return fmt.Errorf("%s %w: %w", e.what, guest.ErrRuns, context.Cause(ctx))
		}
	}
	if usersFault(e.err) {
		return e.err
	}
	return nil // one of its own is in the log
}

// tell tells code of the user's what became of a plugin, and waits for it no longer than the plugin may take to end, or a
// moment longer than ctx lasts. The log has what went wrong.
func (p *Platform) tell(ctx context.Context, spec PluginSpec, what string, f func()) {
	told := &lastCall{
		name: spec.Name, what: what, grace: spec.StopGrace, log: p.log, call: func() error { f(); return nil }, over: make(chan struct{}),
	}
	_ = told.wait(ctx)
}

// callGuest calls code of the user's and waits for it as long as ctx lasts.
func callGuest(ctx context.Context, what string, f func() error) error {
	_, err := guest.Within(ctx, what, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// launchFault is the error of a launch in which code of the user's has its part.
func launchFault(spec PluginSpec, err error) error {
	if errors.Is(err, guest.ErrRuns) && errors.Is(err, errReadyTime) {
		err = fmt.Errorf("%w (%s)", err, spec.ReadyTimeout)
	}
	return fmt.Errorf("launch %q: %w", spec.Name, err)
}

// childProcess is one launch of a process, however it becomes a plugin.
type childProcess struct {
	// Fixed at creation.
	processes *processes
	platform  *Platform
	spec      PluginSpec

	// Set on the way.
	launch   *launches.Launch
	proc     *procgroup.Process
	exited   chan struct{} // closed when nothing is left; made with the instance
	stopping sync.Once

	mu    sync.Mutex
	asked bool // the end is the launcher's doing
}

func (c *childProcess) runtimeID() string {
	if c.launch == nil {
		return ""
	}
	if id := c.launch.Current(); id != nil {
		return id.RuntimeID()
	}
	return ""
}

// config says how the process is started, with what it inherits beside the spec's own.
func (c *childProcess) config(binary *verify.Binary, env []string, output func(procgroup.Line)) (*procgroup.Config, error) {
	spec := c.spec
	path, err := filepath.Abs(spec.BinaryPath)
	if err != nil {
		return nil, fmt.Errorf("BinaryPath: %w", err)
	}
	cfg := &procgroup.Config{
		Path: path, Executable: binary.Executable(), Args: spec.Args, Dir: spec.Dir, Cgroup: spec.Cgroup,
		Env: append(env, spec.Env...), Output: output,
	}
	if cfg.Executable == nil {
		cfg.Path = binary.Path()
	}
	if cfg.Credential, err = procgroup.LookupCredential(spec.User, spec.Group); err != nil {
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].User", spec.Name), "%v", err)
	}
	for name, value := range spec.Rlimits {
		number, _ := procgroup.Resource(string(name)) // validated
		cfg.Rlimits = append(cfg.Rlimits, procgroup.Rlimit{Resource: number, Soft: value, Hard: value})
	}
	return cfg, nil
}

// begin starts the process, and says where nothing would end what it leaves if this process were killed.
func (c *childProcess) begin(cfg *procgroup.Config) (*procgroup.Process, error) {
	proc, err := c.processes.starter.Start(cfg)
	if unguarded := c.processes.guard.Err(); err == nil && unguarded != nil && !errors.Is(unguarded, procgroup.ErrUnsupported) {
		c.platform.log().Warn("if this process is killed, what a plugin started of its own may live on; the next start tries for a guard again",
			keyPlugin, c.spec.Name, keyPid, proc.Pid(), keyError, unguarded)
	}
	return proc, err
}

// socketDir makes a directory that the process alone may enter, beside the host.
func (c *childProcess) socketDir() (string, error) {
	user, err := procgroup.LookupCredential(c.spec.User, c.spec.Group)
	if err != nil {
		return "", fieldError(fmt.Sprintf("PluginSpec[%q].User", c.spec.Name), "%v", err)
	}
	if user == nil {
		return c.processes.sockets.Make(nil)
	}
	return c.processes.sockets.Make(&privdir.Owner{UID: int(user.UID), GID: int(user.GID)})
}

// stop ends the process in steps, of which ask is the first.
func (c *childProcess) stop(ctx context.Context, ask func(context.Context) error) {
	c.stopping.Do(func() {
		grace := c.spec.StopGrace
		// The plugin tells the host that it leaves after its grace.
		err := c.proc.Stop(ctx, procgroup.Steps{Ask: ask, AskWait: grace + leaveWait, TermWait: grace})
		if err != nil {
			c.platform.log().Error("a plugin does not end", keyPlugin, c.spec.Name, keyPid, c.proc.Pid(), keyError, err)
		}
	})
}

func (c *childProcess) noteAsked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = true
}

// exit says how the process ended.
func (c *childProcess) exit() PluginExit {
	e := c.proc.Exit()
	c.mu.Lock()
	asked := c.asked
	c.mu.Unlock()
	out := PluginExit{
		Name: c.spec.Name, RuntimeID: c.runtimeID(), Pid: c.proc.Pid(), At: e.At, Reason: e.String(),
		ExitCode: -1, Requested: asked, Output: e.Tail,
	}
	if e.State != nil {
		out.ExitCode = e.State.ExitCode()
	}
	return out
}

// describe adds to the error of a launch what the host and the plugin said.
func (c *childProcess) describe(ctx context.Context, err error) error {
	select {
	case <-c.proc.Done():
		err = fmt.Errorf("it ended before it was healthy: %s", c.proc.Exit())
	default:
		err = notReady(ctx, err)
	}
	switch reason := c.launch.Refused(); {
	case reason == "":
	case errors.Is(err, errRefused):
		err = fmt.Errorf("%w: %s", err, reason)
	default:
		err = fmt.Errorf("%w; the host refused it: %s", err, reason)
	}
	if tail := c.proc.Tail(); len(tail) > 0 {
		err = fmt.Errorf("%w; it said: %s", err, printableLines(tail))
	}
	return err
}

// killAndWait ends the process of a launch that failed.
func (c *childProcess) killAndWait() {
	if c.proc == nil {
		return
	}
	c.noteAsked()
	_ = c.proc.Kill()
	<-c.proc.Done()
}

// endIdentity ends what the host knows of a launch whose process has ended.
func (c *childProcess) endIdentity() {
	if c.launch == nil {
		return
	}
	if id := c.launch.Current(); id != nil {
		c.platform.hub().store.Revoke(id.RuntimeID(), reasonExited)
	}
}

// logOutput passes what a plugin prints on to the log, tagged.
func (p *Platform) logOutput(name string) func(procgroup.Line) {
	log := p.log().With(keyPlugin, name)
	return func(l procgroup.Line) {
		attrs := []any{keyStream, string(l.Stream)}
		if l.Dropped > 0 {
			attrs = append(attrs, keyDropped, l.Dropped)
		}
		log.Info("plugin prints", append(attrs, keyLine, printable(l.Text))...)
	}
}

// maxToldLine bounds each line of what a plugin printed in an error, in bytes.
const maxToldLine = 256

// printableLines joins lines for an error, which has the beginning of each; all of it is in the log, and in
// [PluginExit].
func printableLines(lines []string) string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = printableTo(l, maxToldLine)
	}
	return strings.Join(out, " ⏎ ")
}
