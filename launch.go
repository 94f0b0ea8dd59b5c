package connectplugin

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/procgroup"
	"github.com/masegraye/connect-plugin-go/internal/supervise"
	"github.com/masegraye/connect-plugin-go/internal/verify"
)

// Defaults of a [PluginSpec].
const (
	defaultReadyTimeout = 10 * time.Second
	defaultStopGrace    = 5 * time.Second
)

// Errors of launching that a caller may branch on.
var (
	// ErrBinaryRefused says that a plugin's binary was not started, because it is not what
	// its [PluginSpec] says.
	ErrBinaryRefused = errors.New("binary refused")
	// ErrPluginNotRunning says that a plugin is not running now; the text says why and until
	// when.
	ErrPluginNotRunning = errors.New("plugin is not running")
)

// PluginSpec says how a plugin is launched. A copy is taken by [PluginLauncher.Configure].
type PluginSpec struct {
	// Name is the plugin's self id, for which policy is written. Empty means the key under
	// which the spec was configured.
	Name string
	// Provides lists the service types that the plugin is launched for. Where it is not
	// empty, a plugin that declares others is refused.
	Provides []string
	// Strategy names the [LaunchStrategy]. Empty means "go-plugin" where GoPlugin is set,
	// otherwise "process" where BinaryPath is, and "in-memory" where neither is.
	Strategy string
	// BinaryPath is the program that the process strategy runs. A relative path is taken
	// from the working directory of the host; PATH is not searched.
	BinaryPath string
	// HostURL is the base URL at which the plugin reaches the host. Empty means the address
	// that the host listens on; a host whose [Host.Handler] is on a server of your own listens on
	// none, and needs it.
	HostURL string
	// Port is the port that the plugin listens on, on loopback. Zero means a Unix socket in a
	// directory that no other user may enter, where the system has such sockets, and
	// elsewhere any free port, which the plugin reports itself.
	Port int
	// Metadata is told to plugins that discover the plugin's services, where the plugin does
	// not say something else itself.
	Metadata map[string]string
	// Plugin and ImplFactory make a plugin of the in-memory strategy: the handler is
	// Plugin.ConnectServer of what ImplFactory returns. For the other strategies Plugin,
	// which may be nil, says what the plugin requires, so that it is started after that.
	Plugin Plugin
	// ImplFactory makes the implementation for Plugin.
	ImplFactory func() any
	// GoPlugin makes BinaryPath a plugin of hashicorp/go-plugin, which runs as it is.
	GoPlugin *GoPluginSpec

	// Checksum is the SHA-256 of the program, in hex. Empty accepts what is found at the
	// first launch, warns, and runs those bytes from then on, whatever the file holds later:
	// another version takes another Checksum or BinaryPath, or a host that starts again. A later
	// start, Replace among them, warns where the file has changed.
	Checksum string
	// SignatureKey, where set, demands that Signature is an Ed25519 signature with that key
	// over the 32 bytes of the program's SHA-256.
	SignatureKey ed25519.PublicKey
	// Signature is what SignatureKey demands.
	Signature []byte
	// Args are the program's arguments, without its name.
	Args []string
	// Env is added to the program's environment, "KEY=value" each. The program inherits
	// nothing of the host's environment.
	Env []string
	// Dir is the working directory. Empty means the host's.
	Dir string
	// User and Group are the name or the number of the user and the group to run as; only
	// root can change them. Empty means the host's, and the user's primary group.
	User string
	// Group is the group to User.
	Group string
	// Rlimits are the program's resource limits, soft and hard alike. Only Linux has them.
	Rlimits map[Rlimit]uint64
	// Cgroup is a directory of a control group, of version 2, that is delegated to the host
	// (systemd: Delegate=yes). Each instance gets one of its own below it, with which all ends
	// that the plugin started. Empty means that what leaves the plugin's process group, as a
	// daemon does, outlives it. Only Linux has them.
	Cgroup string
	// Restart says when the plugin is started again after it ended by itself.
	Restart RestartPolicy
	// ReadyTimeout bounds a launch, from the start until the plugin is healthy. Zero means
	// 10 s.
	ReadyTimeout time.Duration
	// StopGrace is how long the plugin may take to end when it is asked to, with its calls
	// in flight; after that it is sent SIGTERM, and after as long again SIGKILL. Where it runs in the
	// host's own process, closing it may take as long again. Zero means 5 s.
	StopGrace time.Duration
	// OnExit is told each time the plugin's instance ended, whatever ended it. The launcher waits for it, no
	// longer than for StopGrace, so it must return soon and must not wait for the launcher. A panic of it
	// is logged. May be nil.
	OnExit func(PluginExit)
}

// RestartPolicy says when a launched plugin that ended by itself is started again: after a
// wait that doubles with each failure, and once there were too many of them, only after a
// longer rest. Zero fields mean the defaults; 1 ms is the least of each time.
type RestartPolicy struct {
	// Never leaves a plugin that ended alone.
	Never bool
	// MinBackoff is the longest first wait; zero means 100 ms. MaxBackoff bounds all of them;
	// zero means 30 s.
	MinBackoff time.Duration
	// MaxBackoff bounds the waits. It is not less than MinBackoff.
	MaxBackoff time.Duration
	// StableAfter is how long the plugin must run for what was before to be forgotten. Zero
	// means 1 min.
	StableAfter time.Duration
	// MaxFailures within Window are a crash loop. Zero means 5 within 1 min.
	MaxFailures int
	// Window is the time to MaxFailures.
	Window time.Duration
	// Cooldown is the rest after a crash loop. Zero means 1 min.
	Cooldown time.Duration
}

// PluginExit is how an instance of a launched plugin ended.
type PluginExit struct {
	// Name is the plugin's name, RuntimeID the identity that the instance had, empty where it
	// never enrolled.
	Name, RuntimeID string
	// Pid is its process id, zero where it had no process of its own.
	Pid int
	// At is when it ended.
	At time.Time
	// Reason says how, in the system's words.
	Reason string
	// ExitCode is the exit status, -1 where it was ended by a signal or had no process.
	ExitCode int
	// Requested says that the launcher ended it.
	Requested bool
	// Output holds the last lines that it printed; untrusted text.
	Output []string
	// RestartAt is when it is started again, zero for never.
	RestartAt time.Time
	// CrashLoop says that it failed so often that the next start is put off.
	CrashLoop bool
}

// withDefaults returns a copy that shares no memory with s, with the defaults; name is the
// key under which it was configured.
func (s PluginSpec) withDefaults(name string) PluginSpec {
	s.Name = cmp.Or(s.Name, name)
	s.Provides, s.Args, s.Env = slices.Clone(s.Provides), slices.Clone(s.Args), slices.Clone(s.Env)
	s.Metadata, s.Rlimits = maps.Clone(s.Metadata), maps.Clone(s.Rlimits)
	s.Signature, s.SignatureKey = slices.Clone(s.Signature), slices.Clone(s.SignatureKey)
	s.GoPlugin = s.GoPlugin.clone()
	switch {
	case s.Strategy != "":
	case s.GoPlugin != nil:
		s.Strategy = strategyGoPlugin
	case s.BinaryPath != "":
		s.Strategy = strategyProcess
	default:
		s.Strategy = strategyMemory
	}
	s.ReadyTimeout = cmp.Or(s.ReadyTimeout, defaultReadyTimeout)
	s.StopGrace = cmp.Or(s.StopGrace, defaultStopGrace)
	return s
}

const maxPort = 65535

// validate names the first field that is wrong, whatever the strategy.
func (s PluginSpec) validate() error {
	field := func(name, format string, args ...any) error {
		return fieldError(fmt.Sprintf("PluginSpec[%q].%s", clipped(s.Name), name), format, args...)
	}
	if err := ValidateSelfID(s.Name); err != nil {
		return field("Name", "%v", err)
	}
	for i, t := range s.Provides {
		if err := ValidateServiceType(t); err != nil {
			return field(fmt.Sprintf("Provides[%d]", i), "%v", err)
		}
		if slices.Contains(s.Provides[:i], t) {
			return field(fmt.Sprintf("Provides[%d]", i), "%q is there twice", t)
		}
	}
	if err := ValidateMetadata(s.Metadata); err != nil {
		return field("Metadata", "%v", err)
	}
	if s.Port < 0 || s.Port > maxPort {
		return field("Port", "%d is no port; write 0 for any", s.Port)
	}
	if err := s.validateTimes(); err != nil {
		return err
	}
	if s.GoPlugin != nil {
		if err := s.validateGoPlugin(field); err != nil {
			return err
		}
	}
	return s.validateTrust(field)
}

func (s PluginSpec) validateTrust(field func(name, format string, args ...any) error) error {
	if s.Checksum != "" {
		if _, err := verify.ParseDigest(s.Checksum); err != nil {
			return field("Checksum", "%v", err)
		}
	}
	switch {
	case s.Dir != "" && !filepath.IsAbs(s.Dir):
		return field("Dir", "%q is not absolute; write the whole path, or leave it empty for the host's own directory", s.Dir)
	case s.Cgroup != "" && (!filepath.IsAbs(s.Cgroup) || strings.ContainsAny(s.Cgroup, " \t\r\n")):
		return field("Cgroup",
			"%q is no absolute path without white space; write one such as \"/sys/fs/cgroup/system.slice/host.service/plugins\"", s.Cgroup)
	case s.Group != "" && s.User == "":
		return field("User", "is empty; name the user to Group")
	}
	for r := range s.Rlimits {
		if _, ok := procgroup.Resource(string(r)); !ok {
			return field(fmt.Sprintf("Rlimits[%q]", string(r)), "is not known on this system")
		}
	}
	if err := s.validateTexts(field); err != nil {
		return err
	}
	return s.validateSignature(field)
}

// validateTexts refuses what no program can be given. It says nothing of the text, which may be a secret.
func (s PluginSpec) validateTexts(field func(name, format string, args ...any) error) error {
	for i, e := range s.Env {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" {
			return field(fmt.Sprintf("Env[%d]", i), "has no key; write KEY=value")
		}
	}
	for name, texts := range map[string][]string{"Env": s.Env, "Args": s.Args} {
		for i, text := range texts {
			if strings.Contains(text, "\x00") {
				return field(fmt.Sprintf("%s[%d]", name, i), "has a zero byte, which no program can be given; write random bytes in base64 or hex")
			}
		}
	}
	return nil
}

func (s PluginSpec) validateSignature(field func(name, format string, args ...any) error) error {
	switch {
	case len(s.SignatureKey) != 0 && len(s.SignatureKey) != ed25519.PublicKeySize:
		return field("SignatureKey", "has %d bytes; an Ed25519 key has %d", len(s.SignatureKey), ed25519.PublicKeySize)
	case len(s.SignatureKey) != 0 && len(s.Signature) != ed25519.SignatureSize:
		return field("Signature", "has %d bytes; an Ed25519 signature has %d", len(s.Signature), ed25519.SignatureSize)
	case len(s.SignatureKey) == 0 && len(s.Signature) != 0:
		return field("SignatureKey", "is empty; without the key Signature proves nothing")
	}
	return nil
}

// validateTimes names the first time that is negative, too short to be meant, or more than its bound.
func (s PluginSpec) validateTimes() error {
	r, spec := s.Restart, fmt.Sprintf("PluginSpec[%q].", clipped(s.Name))
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"ReadyTimeout", s.ReadyTimeout},
		{"StopGrace", s.StopGrace},
		{"Restart.MinBackoff", r.MinBackoff},
		{"Restart.MaxBackoff", r.MaxBackoff},
		{"Restart.StableAfter", r.StableAfter},
		{"Restart.Window", r.Window},
		{"Restart.Cooldown", r.Cooldown},
	} {
		if err := checkDuration(spec+f.name, f.d, leastDuration); err != nil {
			return err
		}
	}
	switch {
	case r.MaxFailures < 0:
		return fieldError(spec+"Restart.MaxFailures", isNegative)
	case r.MaxBackoff > 0 && r.MinBackoff > r.MaxBackoff:
		return fieldError(spec+"Restart.MinBackoff", "%s is more than MaxBackoff, %s; write that or less", r.MinBackoff, r.MaxBackoff)
	}
	return nil
}

func (p RestartPolicy) supervision() supervise.Config {
	return supervise.Config{
		MinBackoff: p.MinBackoff, MaxBackoff: p.MaxBackoff, StableAfter: p.StableAfter,
		MaxFailures: p.MaxFailures, Window: p.Window, Cooldown: p.Cooldown,
	}
}

// Rlimit names a resource limit of a process, as ulimit and limits.conf do.
type Rlimit string

// The resource limits.
const (
	RlimitCPU          Rlimit = "cpu"     // processor time, in seconds
	RlimitFileSize     Rlimit = "fsize"   // size of a file that it writes, in bytes
	RlimitData         Rlimit = "data"    // size of its data segment, in bytes
	RlimitStack        Rlimit = "stack"   // size of its first stack, in bytes
	RlimitCore         Rlimit = "core"    // size of a core file, in bytes
	RlimitOpenFiles    Rlimit = "nofile"  // number of open files
	RlimitAddressSpace Rlimit = "as"      // size of its address space, in bytes
	RlimitProcesses    Rlimit = "nproc"   // processes and threads of its user
	RlimitLockedMemory Rlimit = "memlock" // memory that it may lock, in bytes
)
